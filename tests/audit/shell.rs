//! A handler that is a command: it logs what it does in a file that outlives the service.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::history::{Crash, History, Id, Time};
use crate::receiver::{Call, Effect, Kind};

/// How much earlier than it was the log says that a command began, at most: see [`History::at_uptime`].
pub(crate) const EARLIER_MAX: Time = 50_000_000;

/// Mostly works; or says that it did nothing, dies, hangs, or hangs and ignores TERM. Each line is one write.
const SCRIPT: &str = r#"
exec 9>>"$0" || exit 9
read -r up rest </proc/uptime
echo "began $1 $2 $3 $$ $up" >&9
case $(($$ % 12)) in
7) sleep 0.1 ;;
8) echo "refused $1 $2 $3" >&9; exit 3 ;;
9) kill -KILL $$ ;;
10) sleep 60 ;;
11) trap '' TERM; sleep 60 ;;
esac
echo "done $1 $2 $3" >&9
"#;

/// The file, which is none of the service's.
pub(crate) fn log(folder: &Path) -> PathBuf {
    folder.join("commands.log")
}

/// The table of the config.
pub(crate) fn config(log: &Path) -> String {
    format!(
        "type = \"command\"\ncommand = [\"/bin/sh\", \"-c\", '''{SCRIPT}''', {:?}, \"{{id}}\", \"{{run}}\", \
         \"{{attempt}}\"]\nkill_after = \"200ms\"\n",
        log.display().to_string()
    )
}

/// What the commands of one life did.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) calls: Vec<Call>,
    /// Of each the process group.
    pub(crate) groups: Vec<i32>,
}

/// Reads the log.
pub(crate) fn read(history: &History, log: &Path) -> Result<Commands, String> {
    let mut commands = Commands::default();
    let mut places: HashMap<(String, u64, u64), usize> = HashMap::new();
    // None was run yet where it is not there.
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        let odd = || format!("a command has logged {line:?}");
        let fields: Vec<_> = line.split(' ').collect();
        let [what, id, run, attempt, more @ ..] = fields.as_slice() else { return Err(odd()) };
        let (run, attempt) = (run.parse().map_err(|_none| odd())?, attempt.parse().map_err(|_none| odd())?);
        let key = ((*id).to_owned(), run, attempt);
        match (*what, more) {
            ("began", [group, uptime]) => {
                places.insert(key, commands.calls.len());
                commands.groups.push(group.parse().map_err(|_none| odd())?);
                commands.calls.push(Call {
                    kind: Kind::Run,
                    id: Id::from(*id),
                    run,
                    attempt,
                    // It is given none.
                    key: format!("command of run {run}"),
                    began: history.at_uptime(uptime).ok_or_else(odd)?,
                    effect: Effect::Unclear,
                });
            }
            ("done" | "refused", []) => {
                let place = *places.get(&key).ok_or_else(odd)?;
                commands.calls[place].effect = if *what == "done" { Effect::Done } else { Effect::Refused };
            }
            _ => return Err(odd()),
        }
    }
    Ok(commands)
}

/// Ends what is left of the commands, and tells what should have been ended by the service: everything, unless a crash
/// came in between.
pub(crate) fn end(commands: &Commands, folder: &Path, crashes: &[Crash]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (process, group) in processes_in(folder) {
        let Some(place) = commands.groups.iter().position(|known| *known == group) else { continue };
        let call = &commands.calls[place];
        if !crashes.iter().any(|crash| crash.ended > call.began) {
            let Call { id, run, attempt, .. } = call;
            wrong.push(format!("{id}: process {process} of run {run} attempt {attempt} is left at rest"));
        }
        if let Some(process) = Pid::from_raw(process) {
            // An error means that it has ended already.
            let _ = kill_process(process, Signal::KILL);
        }
    }
    wrong
}

/// Processes that work in this folder, with their groups.
fn processes_in(folder: &Path) -> Vec<(i32, i32)> {
    let found = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let is_here = fs::read_link(entry.path().join("cwd")).ok()? == folder;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, group.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let (state, group) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        (is_here && state != "Z").then_some((process, group))
    });
    found.collect()
}

/// Whether anybody has a file of this folder open. The child of a killed service has until it has become a command.
pub(crate) fn is_used(folder: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut files =
        processes.flat_map(|process| fs::read_dir(process.path().join("fd")).into_iter().flatten());
    files.any(|file| {
        let target = file.and_then(|file| fs::read_link(file.path()));
        target.is_ok_and(|target| target.starts_with(folder))
    })
}
