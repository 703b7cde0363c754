//! Which tasks somebody may reach: those of some handlers, those whose ids begin in some ways, or all.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{HandlerName, Task, TaskId};

/// The tasks within somebody's reach. By default all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Only tasks of these handlers; none means of any.
    pub handlers: Option<BTreeSet<HandlerName>>,
    /// Only ids that begin with one of these; none means any.
    pub prefixes: Option<Vec<String>>,
}

impl Reach {
    /// Whether nothing is out of reach.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.handlers.is_none() && self.prefixes.is_none()
    }

    /// Whether a task with this id can be in reach.
    #[must_use]
    pub fn has_id(&self, id: &TaskId) -> bool {
        let begins = |prefix: &String| id.as_str().starts_with(prefix.as_str());
        self.prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(begins))
    }

    /// Whether a task of this handler can be in reach.
    #[must_use]
    pub fn has_handler(&self, handler: &HandlerName) -> bool {
        self.handlers.as_ref().is_none_or(|handlers| handlers.contains(handler))
    }

    /// Whether the task is in reach.
    #[must_use]
    pub fn has(&self, task: &Task) -> bool {
        self.has_id(&task.id) && self.has_handler(&task.handler)
    }

    /// What is left of it where only tasks of this handler, and only ids that begin so, are meant.
    #[must_use]
    pub fn narrowed(&self, handler: Option<&HandlerName>, prefix: Option<&str>) -> Self {
        let mut narrowed = self.clone();
        if let Some(handler) = handler {
            let left = self.has_handler(handler).then(|| handler.clone());
            narrowed.handlers = Some(left.into_iter().collect());
        }
        if let Some(prefix) = prefix {
            let any = [String::new()];
            let of = self.prefixes.as_deref().unwrap_or(&any);
            let longer = |own: &String| match (own.starts_with(prefix), prefix.starts_with(own.as_str())) {
                (true, _) => Some(own.clone()),
                (false, true) => Some(prefix.to_owned()),
                (false, false) => None,
            };
            narrowed.prefixes = Some(of.iter().filter_map(longer).collect());
        }
        narrowed
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.handlers.as_ref().is_some_and(BTreeSet::is_empty)
            || self.prefixes.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether all that it has is within the other one.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let are_handlers = match (&self.handlers, &other.handlers) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => own.is_subset(others),
        };
        let are_prefixes = match (&self.prefixes, &other.prefixes) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => {
                own.iter().all(|own| others.iter().any(|other| own.starts_with(other.as_str())))
            }
        };
        are_handlers && are_prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(handlers: &[&str], prefixes: &[&str]) -> Reach {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Reach {
            handlers: (!handlers.is_empty()).then(|| names(handlers)),
            prefixes: (!prefixes.is_empty()).then(|| texts(prefixes)),
        }
    }

    #[test]
    fn what_is_narrowed_is_the_part_that_both_have() {
        let orders = reach(&[], &["order-", "bill-"]);
        assert_eq!(orders.narrowed(None, Some("order-4")), reach(&[], &["order-4"]));
        assert_eq!(orders.narrowed(None, Some("o")), reach(&[], &["order-"]));
        assert!(orders.narrowed(None, Some("x")).is_nothing());
        assert_eq!(Reach::default().narrowed(None, Some("x")), reach(&[], &["x"]));
        let charge = reach(&["charge"], &[]);
        assert!(charge.narrowed(Some(&"report".parse().unwrap()), None).is_nothing());
        assert_eq!(Reach::default().narrowed(Some(&"charge".parse().unwrap()), None), charge);
    }

    #[test]
    fn a_part_is_within_the_whole_and_not_the_other_way() {
        let (all, charge, orders) =
            (Reach::default(), reach(&["charge"], &[]), reach(&["charge"], &["order-"]));
        let order_4 = reach(&["charge"], &["order-4"]);
        for (part, whole) in [(&all, &all), (&charge, &all), (&orders, &charge), (&order_4, &orders)] {
            assert!(part.is_within(whole), "{part:?} {whole:?}");
            assert!(part == whole || !whole.is_within(part), "{part:?} {whole:?}");
        }
        assert!(!orders.is_within(&reach(&["report"], &[])));
    }

    #[test]
    fn everything_is_what_no_list_narrows() {
        assert!(Reach::default().is_everything());
        for narrowed in [reach(&["charge"], &[]), reach(&[], &["order-"]), reach(&["charge"], &["order-"])] {
            assert!(!narrowed.is_everything(), "{narrowed:?}");
        }
    }
}
