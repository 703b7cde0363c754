//! How long settled tasks are kept whole, and at all.

use std::time::Duration;

/// What becomes of settled tasks with their age, the time since they entered their state. None means that nothing
/// does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The age at which a task loses the bytes of its input, its output and its attempts.
    pub details: Option<Duration>,
    /// The age at which a failed record is forgotten.
    pub failed: Option<Duration>,
    /// The age at which a success is forgotten. **After that its id can run again.**
    pub success: Option<Duration>,
    /// How often it is looked at.
    pub interval: Duration,
}

impl Default for Retention {
    /// Everything is kept.
    fn default() -> Self {
        Self { details: None, failed: None, success: None, interval: Duration::from_mins(1) }
    }
}

impl Retention {
    /// Whether everything is kept.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.details.is_none() && self.failed.is_none() && self.success.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_while_no_age_is_given() {
        let (off, age) = (Retention::default(), Some(Duration::from_secs(1)));
        assert!(off.is_off());
        for on in [
            Retention { details: age, ..off.clone() },
            Retention { failed: age, ..off.clone() },
            Retention { success: age, ..off },
        ] {
            assert!(!on.is_off(), "{on:?}");
        }
    }
}
