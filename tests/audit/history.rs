//! What clients asked, what they were told, and when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use crate::support::client::Answer as Response;

/// Nanoseconds since the history began. One clock for clients and receiver, because they are one process.
pub(crate) type Time = u64;
pub(crate) type Id = Arc<str>;

/// Everything that clients did in one life of a data folder.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) operations: Vec<Operation>,
    pub(crate) walks: Vec<Walk>,
    /// Answers that nobody should ever get.
    pub(crate) oddities: Vec<String>,
    pub(crate) crashes: Vec<Crash>,
}

/// The end of a process, and the start of the next one.
#[derive(Debug, Clone)]
pub(crate) struct Crash {
    /// When it was alive for certain.
    pub(crate) began: Time,
    /// When it was dead for certain, and no other one had begun.
    pub(crate) ended: Time,
    /// Whether the next one got as far as to serve: then it has settled what this one left.
    pub(crate) is_recovered: bool,
    pub(crate) what: String,
}

/// One request about one id.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: Id,
    pub(crate) ask: Ask,
    pub(crate) began: Time,
    /// [`Time::MAX`] where no answer came: it may still happen at any time.
    pub(crate) ended: Time,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Launch,
    /// A launch that is answered when the run is over: what it says is of a later moment than what it did.
    LaunchAndWait,
    Retry,
    Cancel,
    Revoke,
    Forget,
    Read,
}

/// What an answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None came, or one that does not say whether it was done. Never taken for a failure.
    Unknown,
    /// How it stands. `own`: because of this request.
    Seen { own: bool, seen: Seen },
    /// It is not found. `own`: because of this request.
    Absent { own: bool },
    /// Nothing was changed; in which state it is, where that is told.
    Refused(Option<Name>),
}

/// A record at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) run: u64,
    pub(crate) name: Name,
    pub(crate) phase: Option<Phase>,
    pub(crate) attempt: u64,
    pub(crate) since: String,
    /// The kind of a failure and whether it is in doubt.
    pub(crate) error: Option<(String, bool)>,
    pub(crate) has_revoke_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    Working,
    Success,
    Failed,
    NotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Queued,
    Running,
    BackingOff,
    Canceling,
    Revoking,
}

/// Page after page of one list, until its end.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) name: Name,
    pub(crate) began: Time,
    pub(crate) ended: Time,
    pub(crate) pages: usize,
    pub(crate) listed: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: Name,
    pub(crate) run: u64,
    pub(crate) since: String,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), noted: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Time {
        u64::try_from(self.began.elapsed().as_nanos()).expect("less than five centuries")
    }

    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    pub(crate) fn parse(word: &Value) -> Option<Self> {
        Some(match word.as_str()? {
            "working" => Self::Working,
            "success" => Self::Success,
            "failed" => Self::Failed,
            "not_found" => Self::NotFound,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::NotFound => "not_found",
        }
    }
}

impl Phase {
    fn parse(word: &Value) -> Option<Self> {
        Some(match word.as_str()? {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "backing_off" => Self::BackingOff,
            "canceling" => Self::Canceling,
            "revoking" => Self::Revoking,
            _ => return None,
        })
    }
}

impl Seen {
    fn parse(response: &Response, body: &Value) -> Option<Self> {
        let revision = response.header("etag")?.trim_matches('"').parse().ok()?;
        let kind = body["error"]["kind"].as_str();
        Some(Self {
            revision,
            run: body["run"].as_u64()?,
            name: Name::parse(&body["state"])?,
            phase: Phase::parse(&body["phase"]),
            attempt: body["attempt"].as_u64().unwrap_or_default(),
            since: body["since"].as_str()?.to_owned(),
            error: kind.map(|kind| (kind.to_owned(), body["in_doubt"] == true)),
            has_revoke_error: !body["revoke_error"].is_null(),
        })
    }
}

impl Listed {
    pub(crate) fn parse(line: &Value) -> Option<Self> {
        Some(Self {
            id: line["id"].as_str()?.to_owned(),
            name: Name::parse(&line["state"])?,
            run: line["run"].as_u64()?,
            since: line["since"].as_str()?.to_owned(),
        })
    }
}

impl Answer {
    /// Fails where the answer is none that this request may get.
    pub(crate) fn parse(ask: Ask, response: &Response) -> Result<Self, String> {
        let status = response.status.as_u16();
        if (ask, status) == (Ask::Forget, 204) {
            return Ok(Self::Absent { own: true });
        }
        let odd =
            || format!("{ask:?} was answered with {status} {}", String::from_utf8_lossy(&response.body));
        let body: Value = serde_json::from_slice(&response.body).map_err(|_broken| odd())?;
        let is_write = ask != Ask::Read;
        match status {
            200 | 202 => {}
            404 if Name::parse(&body["state"]) == Some(Name::NotFound) => {
                return Ok(Self::Absent { own: false });
            }
            409 if is_write => return Ok(Self::Refused(Name::parse(&body["state"]))),
            429 if is_write => return Ok(Self::Refused(None)),
            503 if response.header("retry-after").is_some() => {
                let says_so =
                    body["detail"].as_str().is_some_and(|detail| detail.contains("nothing was changed"));
                return Ok(if says_so { Self::Refused(None) } else { Self::Unknown });
            }
            _ => return Err(odd()),
        }
        let own = match ask {
            Ask::Launch | Ask::LaunchAndWait | Ask::Retry => body["launched"] == true,
            Ask::Revoke => true,
            // A second cancel of a run is answered as the first one.
            Ask::Cancel | Ask::Forget | Ask::Read => false,
        };
        if Name::parse(&body["state"]) == Some(Name::NotFound) {
            return if ask == Ask::Revoke { Ok(Self::Absent { own }) } else { Err(odd()) };
        }
        Seen::parse(response, &body).map(|seen| Self::Seen { own, seen }).ok_or_else(odd)
    }
}
