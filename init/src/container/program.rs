//! The program that a process of a container becomes, and how it is found.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::unistd::execve;

use super::seccomp::Filter;
use crate::error::{Code, Context, Error, Result};

/// What is executed, all of it prepared: after the limits are set there may be no memory to do so.
pub struct Program {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Where to look when the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    pub fn new(args: Vec<CString>, mut env: Vec<CString>, home: &str) -> Result<Self> {
        let Some(name) = args.first() else {
            return Err(Error::new(Code::InvalidArgument, "process.args: empty"));
        };
        if !has_home(&env) {
            env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
            env.extend(CString::new(format!("HOME={home}")));
        }
        let candidates = candidates(name, value_of(&env, b"PATH=").unwrap_or(DEFAULT_PATH));
        Ok(Self { candidates, args, env })
    }

    /// A program by its path, with nothing looked up and nothing added.
    pub fn exact(path: CString, args: Vec<CString>, env: Vec<CString>) -> Self {
        Self { candidates: vec![path], args, env }
    }

    /// Device and inode of PID 1's own program, as seen while the guest's /proc is there.
    pub fn ourselves() -> Result<(u64, u64)> {
        let file =
            fs::metadata("/proc/self/exe").context(|| "stat \"/proc/self/exe\"".to_owned())?;
        Ok((file.dev(), file.ino()))
    }

    /// Executes the first candidate that there is, as execvp(3) does. PID 1's own program is never one: through a link
    /// to /proc/self/exe a container would get hold of it (CVE-2019-5736). The filter comes last: of all that is done
    /// here it need permit execve(2) alone.
    pub fn run(mut self, ourselves: &(u64, u64), filter: Option<&Filter>) -> Result<Infallible> {
        let listed = self.candidates.len();
        self.candidates.retain(|candidate| !is_file(candidate, ourselves));
        let mut failure =
            if self.candidates.len() < listed { Errno::EACCES } else { Errno::ENOENT };
        if let Some(filter) = filter {
            filter.load()?;
        }
        for candidate in &self.candidates {
            match execve(candidate, &self.args, &self.env) {
                Ok(never) => match never {},
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => failure = Errno::EACCES,
                Err(errno) => {
                    failure = errno;
                    break;
                }
            }
        }
        Err(self.explain(failure))
    }

    fn explain(&self, errno: Errno) -> Error {
        let name = self.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let cause = Error::from(errno);
        // Found, and nothing that can run: for a caller that is the same as not being allowed to.
        let code = if errno == Errno::ENOEXEC { Code::PermissionDenied } else { cause.code() };
        Error::new(code, format!("exec {name:?}: {cause}"))
    }
}

fn is_file(path: &CStr, (device, inode): &(u64, u64)) -> bool {
    nix::sys::stat::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (*device, *inode))
}

/// An empty HOME is none, as other runtimes have it.
pub fn has_home(env: &[CString]) -> bool {
    value_of(env, b"HOME=").is_some_and(|home| !home.is_empty())
}

fn value_of<'a>(env: &'a [CString], name: &[u8]) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.as_bytes().strip_prefix(name))
}

/// A name with a slash is a path; another is looked for in every directory of `path`, an empty one being the working
/// directory.
fn candidates(name: &CStr, path: &[u8]) -> Vec<CString> {
    let name_bytes = name.to_bytes();
    if name_bytes.is_empty() || name_bytes.contains(&b'/') {
        return vec![name.to_owned()];
    }
    path.split(|byte| *byte == b':')
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", name_bytes].concat()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &CStr, path: &str) -> Vec<String> {
        let found = candidates(name, path.as_bytes());
        found.into_iter().map(|candidate| candidate.into_string().unwrap()).collect()
    }

    #[test]
    fn a_program_is_looked_for_in_path_unless_it_is_one() {
        assert_eq!(names(c"sh", "/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(names(c"sh", ":/bin"), ["./sh", "/bin/sh"]);
        assert_eq!(names(c"./sh", "/bin"), ["./sh"]);
        assert_eq!(names(c"/x/sh", "/bin"), ["/x/sh"]);
        assert_eq!(names(c"", "/bin"), [""], "execve says ENOENT");
    }

    #[test]
    fn home_is_given_where_the_spec_does_not() {
        let env = |list: &[&CStr]| list.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        let program = |list| Program::new(vec![c"sh".to_owned()], env(list), "/root").unwrap().env;
        assert_eq!(program(&[c"A=b"]), env(&[c"A=b", c"HOME=/root"]));
        assert_eq!(program(&[c"HOME=", c"A=b"]), env(&[c"A=b", c"HOME=/root"]));
        assert_eq!(program(&[c"HOME=/x"]), env(&[c"HOME=/x"]));
        assert!(Program::new(Vec::new(), Vec::new(), "/").is_err());
    }

    #[test]
    fn a_missing_program_and_one_that_cannot_run_are_told_apart() {
        let program = Program::new(vec![c"foo".to_owned()], Vec::new(), "/").unwrap();
        let missing = program.explain(Errno::ENOENT);
        assert_eq!(missing.code(), Code::NotFound);
        assert_eq!(missing.message(), "exec \"foo\": ENOENT: No such file or directory");
        assert_eq!(program.explain(Errno::ENOEXEC).code(), Code::PermissionDenied);
        assert_eq!(program.explain(Errno::EACCES).code(), Code::PermissionDenied);
    }
}
