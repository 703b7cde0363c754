//! Which file a command runs, and why it does not start.
//!
//! The file is looked up here and not by the system: the system would search the `PATH` of the command, which may have
//! none, and would hand a file that it cannot run to a shell.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The file that `program` names: itself where it is a path (against the command's working directory, if relative),
/// otherwise the first executable of this name in `path`, which is the service's own `PATH`.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub(super) fn find<'a>(program: &'a str, path: Option<&OsStr>) -> Result<Cow<'a, Path>, String> {
    if program.is_empty() {
        return Err("the command names no program: its first argument is empty".to_owned());
    }
    if program.contains('/') {
        return Ok(Cow::Borrowed(Path::new(program)));
    }
    let Some(path) = path else {
        return Err(format!(
            "{program} was not looked up, since the service has no PATH; give its full path"
        ));
    };
    let mut not_executable = None;
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        let file = folder.join(program);
        match std::fs::metadata(&file) {
            Ok(about) if about.is_file() && about.permissions().mode() & 0o111 != 0 => {
                return Ok(Cow::Owned(file));
            }
            Ok(about) if about.is_file() => not_executable = Some(file),
            _ => (),
        }
    }
    Err(match not_executable {
        Some(file) => format!("{} is not executable; chmod +x it", file.display()),
        None => format!("{program} is in no folder of the service's PATH; install it, or give its full path"),
    })
}

/// Why the start of `program` failed, and what to do about it.
pub(super) fn not_started(error: &io::Error, program: &Path, cwd: Option<&Path>) -> String {
    if let Some(cwd) = cwd {
        match std::fs::metadata(cwd) {
            Ok(about) if !about.is_dir() => {
                return format!("the working directory {} is no folder", cwd.display());
            }
            Ok(_) => (),
            Err(error) => {
                return format!("the working directory {} cannot be used ({error})", cwd.display());
            }
        }
    }
    let file: PathBuf = cwd.map_or_else(|| program.to_owned(), |cwd| cwd.join(program));
    let name = file.display();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if file.exists() => {
            format!("{name} names an interpreter that does not exist; look at its first line (#!)")
        }
        Some(Errno::NOENT) => format!("{name} does not exist"),
        Some(Errno::ACCESS) if file.is_dir() => format!("{name} is a folder"),
        Some(Errno::ACCESS) => format!("{name} is not executable for the service; chmod +x it"),
        Some(Errno::NOEXEC) => format!(
            "{name} is no program for this machine; a script needs a first line such as #!/bin/sh, since no shell is used"
        ),
        Some(Errno::TOOBIG) => {
            format!("{name} was not started: its arguments and environment are too long for the system")
        }
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            format!("{name} was not started: the system is out of processes, memory or files ({error})")
        }
        _ => format!("{name} was not started ({error})"),
    }
}
