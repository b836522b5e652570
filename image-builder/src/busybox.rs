//! The default container image: one static busybox, a name for each of its applets, and the few files that programs
//! expect of a root. All names are hard links to one file, so the image is little larger than the program.

use crate::config::ImageConfig;
use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::tree::{InodeId, Kind, Meta, Path as TreePath, Tree, shown};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

const DIRECTORIES: [(&str, u16); 17] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: [(&str, u16, &str); 5] = [
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/:/bin/false\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/shadow", 0o600, "root:*:::::::\ndaemon:*:::::::\nnobody:*:::::::\n"),
    ("etc/hosts", 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
];

/// The image's configuration: a shell, as the busybox image of Docker has it.
pub fn config() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cmd: vec!["sh".into()],
        ..ImageConfig::default()
    }
}

/// The image's tree, with a name for each of `applets`: a path (`usr/bin/env`), or a bare name, which goes to `/bin`.
pub fn tree(binary: &Path, applets: &[String]) -> Result<Tree> {
    let file = File::open(binary).context(|| {
        format!("open busybox {binary:?} (on Debian: apt-get install busybox-static)")
    })?;
    let length = file.metadata().context(|| format!("stat {binary:?}"))?.len();
    let mut tree = Tree::default();
    for (path, mode) in DIRECTORIES {
        tree.put(path, Meta::root_owned(mode), Kind::directory())?;
    }
    for (path, mode, text) in FILES {
        let content = Content::bytes(text.as_bytes());
        tree.put(path, Meta::root_owned(mode), Kind::File(content))?;
    }
    let content = Content::stretch(&Rc::new(file), 0, length);
    let program = tree.put("bin/busybox", Meta::root_owned(0o755), Kind::File(content))?;
    for applet in applets {
        add_applet(&mut tree, applet, program).context(|| format!("add applet {applet:?}"))?;
    }
    Ok(tree)
}

fn add_applet(tree: &mut Tree, applet: &str, program: InodeId) -> Result<()> {
    let path = match applet.contains('/') {
        true => TreePath::parse(applet.as_bytes())?,
        false => TreePath::parse(format!("bin/{applet}").as_bytes())?,
    };
    let Some((parent, name)) = path.split() else {
        return Err(Error::refused("it has no name"));
    };
    let parent = tree.make_directories(&parent)?;
    match tree.directory(parent).and_then(|dir| dir.entry(name)) {
        Some(there) if there == program => Ok(()),
        Some(_) => Err(Error::refused("there is another file of this name")),
        None => tree.link(parent, name.clone(), program),
    }
}

/// Asks the program for its applets: it is run once, with `--list-full`, or with `--list` if it cannot say where each
/// belongs.
pub fn applets(binary: &Path) -> Result<Vec<String>> {
    list(binary, "--list-full").or_else(|_| list(binary, "--list"))
}

fn list(binary: &Path, option: &str) -> Result<Vec<String>> {
    const TOO_MANY: usize = 4096;
    let operation = || format!("run {binary:?} {option} (or name its applets with --applets FILE)");
    let output = Command::new(binary).arg(option).env_clear().stdin(Stdio::null()).output();
    let output = output.context(operation)?;
    if !output.status.success() {
        let said = shown(&output.stderr);
        return Err(Error::io(format!("{}: {}: {:?}", operation(), output.status, said.trim())));
    }
    let text = String::from_utf8(output.stdout);
    let text = text.map_err(|_| Error::refused(format!("{}: not a list of names", operation())))?;
    let applets: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match applets.len() {
        0 => Err(Error::refused(format!("{}: an empty list", operation()))),
        count if count > TOO_MANY => {
            Err(Error::too_large(format!("{}: {count} names", operation())))
        }
        _ => Ok(applets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_applet_is_a_name_of_one_file() {
        let own = std::env::current_exe().unwrap();
        let applets = ["sh", "usr/bin/env", "bin/busybox", "linuxrc"].map(String::from);
        let tree = tree(&own, &applets).unwrap();
        let at = |path: &str| tree.find(&TreePath::parse(path.as_bytes()).unwrap()).unwrap();
        let program = at("bin/busybox");
        assert_eq!(tree.link_counts()[program.index()], 4);
        assert!(["bin/sh", "usr/bin/env", "bin/linuxrc"].map(at).iter().all(|id| *id == program));
    }

    #[test]
    fn an_applet_cannot_leave_the_image_or_replace_a_file() {
        let own = std::env::current_exe().unwrap();
        for bad in ["../sh", "/bin/sh", "etc/passwd", "etc/passwd/sh"] {
            let err = tree(&own, &[bad.to_string()]).unwrap_err();
            assert!(err.to_string().starts_with("add applet"), "{err}");
        }
    }
}
