//! Pauses that grow: what cannot be done now is tried again, less and less often.

use std::time::Duration;

/// Each is twice as long as the one before, up to the longest. A copy begins where this one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The one to make now.
    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_twice_as_long_as_the_one_before_up_to_the_longest() {
        const PAUSES: Pauses = Pauses::new(Duration::from_secs(3), Duration::from_secs(20));
        let mut pauses = PAUSES;
        let taken = [(); 6].map(|()| pauses.take().as_secs());
        assert_eq!(taken, [3, 6, 12, 20, 20, 20]);
        assert_eq!({ PAUSES }.take().as_secs(), 3, "a copy of the first ones begins anew");
    }
}
