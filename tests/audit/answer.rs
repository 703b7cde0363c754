//! What answers say, read from their JSON.

use serde_json::Value;

use crate::history::{Answer, Ask, Attempt, How, Listed, Name, Phase, Seen, Stand, Time};
use crate::support::client::Answer as Response;

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
        Self::of(response.header("etag")?.trim_matches('"').parse().ok()?, body)
    }

    /// Where the answer has no revision it is 0.
    pub(crate) fn of(revision: u64, body: &Value) -> Option<Self> {
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
    pub(crate) fn parse(ask: Ask, how: How, response: &Response) -> Result<Self, String> {
        let status = response.status.as_u16();
        if (ask, status) == (Ask::Forget, 204) {
            return Ok(Self::Absent { own: true });
        }
        let odd =
            || format!("{ask:?} was answered with {status} {}", String::from_utf8_lossy(&response.body));
        let body: Value = serde_json::from_slice(&response.body).map_err(|_broken| odd())?;
        let is_write = ask != Ask::Read;
        match status {
            200 | 202 if !(how.is_strict && body["launched"] != true) => {}
            404 if Name::parse(&body["state"]) == Some(Name::NotFound) => {
                return Ok(Self::Absent { own: false });
            }
            412 if how.if_match.is_some() || how.if_unknown => {
                return Ok(Self::Unmet(Name::parse(&body["state"])));
            }
            409 if is_write => return Ok(Self::Refused(Name::parse(&body["state"]))),
            429 if is_write => return Ok(Self::Refused(None)),
            503 if response.header("retry-after").is_some() => {
                return Ok(if says_so(&body) { Self::Refused(None) } else { Self::Unknown });
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
            // Who waits for a launch may be told that the record was forgotten or revoked meanwhile.
            let is_legal = matches!(ask, Ask::Revoke | Ask::LaunchAndWait);
            return if is_legal { Ok(Self::Absent { own }) } else { Err(odd()) };
        }
        let seen = Seen::parse(response, &body).ok_or_else(odd)?;
        match body["reason"].as_str() {
            Some("same_request") if how.key.is_some() => Ok(Self::Same(seen)),
            Some("same_request") => Err(odd()),
            _ => Ok(Self::Seen { own, seen }),
        }
    }

    /// What a line of a batch tells.
    pub(crate) fn of_line(line: &Value) -> Result<Self, String> {
        let odd = || format!("a line of a batch was answered with {line}");
        match line["status"].as_u64() {
            Some(200 | 202) => {
                let own = line["launched"] == true;
                Seen::of(0, line).map(|seen| Self::Glimpsed { own, seen }).ok_or_else(odd)
            }
            Some(409) => Ok(Self::Refused(Name::parse(&line["state"]))),
            Some(429) => Ok(Self::Refused(None)),
            Some(503) if says_so(line) => Ok(Self::Refused(None)),
            Some(503) => Ok(Self::Unknown),
            _ => Err(odd()),
        }
    }

    /// What a lookup tells of one id.
    pub(crate) fn of_found(found: &Value) -> Result<Self, String> {
        if Name::parse(&found["state"]) == Some(Name::NotFound) {
            return Ok(Self::Absent { own: false });
        }
        let seen = Seen::of(0, found);
        seen.map(|seen| Self::Glimpsed { own: false, seen }).ok_or_else(|| format!("looked up as {found}"))
    }
}

fn says_so(problem: &Value) -> bool {
    problem["detail"].as_str().is_some_and(|detail| detail.contains("nothing was changed"))
}

impl Attempt {
    /// All that a record tells.
    pub(crate) fn all(record: &Value) -> Option<Vec<Self>> {
        record["attempts"].as_array()?.iter().map(Self::parse).collect()
    }

    fn parse(attempt: &Value) -> Option<Self> {
        let kind = attempt["error"]["kind"].as_str();
        let error = kind.map(|kind| (kind.to_owned(), attempt["in_doubt"] == true));
        let is_success = attempt["outcome"] == "success";
        let (run, number) = (attempt["run"].as_u64()?, attempt["attempt"].as_u64()?);
        (is_success == error.is_none()).then_some(Self { run, number, error })
    }
}

impl Stand {
    pub(crate) fn parse(at: Time, bulk: &Value) -> Option<Self> {
        let count = |name: &str| bulk[name].as_u64();
        let is_over = match bulk["state"].as_str()? {
            "running" => false,
            "done" => true,
            _ => return None,
        };
        let counts = [count("done")?, count("skipped")?, count("failed")?];
        Some(Self { at, is_over, matched: count("matched")?, counts })
    }
}
