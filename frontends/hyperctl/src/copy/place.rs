//! Where things are, and what they will be called there: docker's rules.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// One end of a copy, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path of the container's, made absolute.
    Container {
        pod: String,
        path: String,
    },
    Host(PathBuf),
    /// Standard input or output.
    Stream,
}

impl Location {
    /// `POD:PATH` unless it begins as a path does.
    pub fn parse(text: &str) -> Result<Location> {
        if text.is_empty() {
            return Err(Error::new("cp: an empty path"));
        }
        if text == "-" {
            return Ok(Location::Stream);
        }
        match text.split_once(':') {
            Some((pod, path)) if !pod.is_empty() && !pod.starts_with(['/', '.']) => {
                if path.is_empty() {
                    return Err(Error::new(format!("cp: {text:?}: no path after the colon")));
                }
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Ok(Location::Container { pod: pod.to_owned(), path })
            }
            Some(_) | None => Ok(Location::Host(PathBuf::from(text))),
        }
    }
}

/// What is at the place to copy to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    Nothing,
    Directory,
    /// Something else: what a directory cannot be copied to.
    Other,
}

/// Where the archive's top goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The directory to unpack into.
    pub directory: String,
    /// What the top is called in it; none: there is no top, what is in it comes in here.
    pub name: Option<String>,
}

/// Whether a path means what is in a directory.
pub fn contents_of(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.is_empty() || matches!(path.rsplit('/').next(), Some("." | ".."))
}

/// The last name of a path that has one.
pub fn name_of(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!contents_of(path)).then_some(name)
}

fn parent_of(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    }
}

/// `cp`'s rules: `source` as the user wrote it, `is_directory` what it turned out to be, `there` what is at `destination`.
pub fn target(source: &str, is_directory: bool, destination: &str, there: There) -> Result<Target> {
    let wrong = |why: &str| Err(Error::new(format!("{destination:?}: {why}")));
    let beside = || match name_of(destination) {
        Some(name) => {
            Ok(Target { directory: parent_of(destination).into(), name: Some(name.into()) })
        }
        None => Err(Error::new(format!("{destination:?}: no such directory"))),
    };
    match there {
        There::Directory => {
            let name = name_of(source).map(str::to_owned);
            Ok(Target { directory: destination.to_owned(), name })
        }
        There::Other if is_directory => wrong("is no directory"),
        There::Other if destination.ends_with('/') => wrong("is no directory"),
        There::Nothing if !is_directory && destination.ends_with('/') => wrong("no such directory"),
        There::Other | There::Nothing => beside(),
    }
}

/// What is at a path of the host, links followed. A file there is unlinked for the one that comes, which nobody means who
/// names a device or a pipe.
pub fn there(path: &Path) -> Result<There> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(There::Directory),
        Ok(found) if found.is_file() => Ok(There::Other),
        Ok(_) => Err(Error::new(format!("{path:?}: is neither a file nor a directory"))),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(There::Nothing),
        Err(err) => Err(Error::new(format!("{path:?}: {err}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_of_a_container_of_the_host_or_a_stream() {
        let parse = |text| Location::parse(text).unwrap();
        let container =
            |pod: &str, path: &str| Location::Container { pod: pod.into(), path: path.into() };
        assert_eq!(parse("web:/etc"), container("web", "/etc"));
        assert_eq!(parse("web:etc"), container("web", "/etc"));
        assert_eq!(parse("web/side:/a:b"), container("web/side", "/a:b"));
        assert_eq!(parse("-"), Location::Stream);
        for host in ["/a:b", "./a:b", "a", ":b", "../a:b"] {
            assert_eq!(parse(host), Location::Host(PathBuf::from(host)));
        }
        assert!(Location::parse("").is_err() && Location::parse("web:").is_err());
    }

    #[test]
    fn the_last_name_is_a_name() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("b/", Some("b")),
            ("/", None),
            ("/a/.", None),
            ("..", None),
            (".", None),
        ] {
            assert_eq!(name_of(path), name, "{path}");
            assert_eq!(contents_of(path), name.is_none(), "{path}");
        }
    }

    #[test]
    fn a_device_is_not_replaced() {
        let err = there(Path::new("/dev/null")).unwrap_err();
        assert!(err.message().contains("neither a file nor a directory"), "{err:?}");
        assert_eq!(there(Path::new("/dev")).unwrap(), There::Directory);
        assert_eq!(there(Path::new("/nowhere")).unwrap(), There::Nothing);
    }

    #[test]
    fn targets_are_what_docker_makes_of_them() {
        use There::{Directory, Nothing, Other};
        let at = |directory: &str, name: Option<&str>| Target {
            directory: directory.into(),
            name: name.map(str::to_owned),
        };
        for (source, is_directory, destination, there, expected) in [
            ("/s/f", false, "/d/g", Nothing, at("/d", Some("g"))),
            ("/s/f", false, "/d", Directory, at("/d", Some("f"))),
            ("/s/f", false, "/d/g", Other, at("/d", Some("g"))),
            ("f", false, "g", Nothing, at(".", Some("g"))),
            ("/s", true, "/d", Nothing, at("/", Some("d"))),
            ("/s", true, "/d/", Nothing, at("/", Some("d"))),
            ("/s/.", true, "/d", Nothing, at("/", Some("d"))),
            ("/s", true, "/d", Directory, at("/d", Some("s"))),
            ("/s/.", true, "/d", Directory, at("/d", None)),
            ("/", true, ".", Directory, at(".", None)),
        ] {
            let found = target(source, is_directory, destination, there).unwrap();
            assert_eq!(found, expected, "{source} {destination} {there:?}");
        }
        assert!(target("/s/f", false, "/d/", Nothing).is_err());
        assert!(target("/s/f", false, "/d/", Other).is_err());
        assert!(target("/s", true, "/d", Other).is_err());
        assert!(target("/s", true, "/d/..", Nothing).is_err());
    }
}
