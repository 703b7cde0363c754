//! Server-sent events, read line by line.

/// An event: its place, its name, what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) seq: Option<u64>,
    pub(super) name: String,
    pub(super) data: String,
}

/// What was read so far of an event, and how far the stream is.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The last place that was told, with an event or without one: where to go on after a break.
    pub(super) place: Option<u64>,
    /// The place in the lines so far; it counts once the event is whole.
    next_place: Option<u64>,
    name: String,
    data: Option<String>,
}

impl Events {
    pub(super) fn after(place: Option<u64>) -> Self {
        Self { place, ..Self::default() }
    }

    /// Takes a line in. An empty one ends an event.
    pub(super) fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            self.place = self.next_place.take().or(self.place);
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { seq: self.place, name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.next_place = value.parse().ok(),
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment, which begins with a colon, or what is not known.
            _ => {}
        }
        None
    }

    /// The connection is another one: what was begun comes again.
    pub(super) fn begin_again(&mut self) {
        *self = Self::after(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_comments_and_bare_places_are_told_apart() {
        let text = ": events\nid: 41\n\nid: 43\nevent: success\ndata: {\"a\":\ndata: 1}\nretry: 5\n\n: still here\n\nid: 44\n";
        let mut events = Events::default();
        let told: Vec<_> = text.lines().filter_map(|line| events.take(line)).collect();
        let event = Event { seq: Some(43), name: "success".to_owned(), data: "{\"a\":\n1}".to_owned() };
        assert_eq!(told, [event]);
        assert_eq!(events.place, Some(43), "the last one is not whole");
        events.begin_again();
        assert_eq!(events.take(""), None);
        assert_eq!(events.place, Some(43));
    }
}
