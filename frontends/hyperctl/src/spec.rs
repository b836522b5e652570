//! What is to run: from an image's description and flags, or from a bundle, to an OCI spec and the storages that its
//! root filesystem needs.
//!
//! host-lib's default spec gives the capabilities, mounts and hidden paths; here are only the words that the user and
//! the image have a say in. A bundle's config.json is taken as it is, save for its root, which the guest has elsewhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use hyperstart::spec::{default_process, default_spec};
use hyperstart::{ContainerId, Storage};
use hyperstart_vmm::ShareKind;
use image_builder::ImageConfig;
use oci_spec::runtime::{LinuxNamespaceType, Process, Root as OciRoot, Spec};
use serde::{Deserialize, Serialize};

use crate::binds::Binds;
use crate::config;
use crate::error::{Context as _, Error, Result};
use crate::flags::ContainerFlags;
use crate::hooks::Hooks;
use crate::image::Image;
use crate::image_volumes;
use crate::mounts::{Mounts, Shares};
use crate::pod::disks::Attached;
use crate::pod::state::Mounted;

/// Docker's, for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The tag by which the guest finds a bundle's shared directory.
pub const ROOTFS_TAG: &str = "rootfs";

/// What `run` and `exec` let the user say about a process.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct ProcessFlags {
    /// Environment variable; without a value, hyperctl's own
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User, by name or number, looked up in the container
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}

/// A variable has a name.
fn variable(text: &str) -> std::result::Result<String, String> {
    match name(text) {
        "" => Err("a name is missing before the value".to_string()),
        _ => Ok(text.to_string()),
    }
}

/// Where a container's root filesystem comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Root {
    /// The layers of an image from the lowest up, each attached as a disk.
    Image { layers: Vec<PathBuf> },
    /// A directory of the host, shared so that writes reach it.
    Directory { path: PathBuf },
}

impl Root {
    pub fn layers(&self) -> &[PathBuf] {
        match self {
            Root::Image { layers } => layers,
            Root::Directory { .. } => &[],
        }
    }
}

/// A container, before it has an id and a VM. One of a bundle is not for another process: its binds are left out.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Container {
    /// For people: what is run.
    pub label: String,
    pub root: Root,
    /// What else of the host its mounts need.
    #[serde(skip)]
    pub binds: Binds,
    /// What `-v` and `--mount` have come to.
    #[serde(skip)]
    pub mounts: Mounts,
    pub process: Process,
    /// A bundle's config.json; `None`: host-lib's default.
    config: Option<Spec>,
    /// The directory that it is in.
    bundle: Option<PathBuf>,
    /// By name or number; empty is SIGTERM.
    pub stop_signal: String,
    /// Where its image wants volumes.
    volumes: Vec<PathBuf>,
    /// What the user says about it, beyond its process.
    pub flags: ContainerFlags,
}

impl Container {
    /// The same with what the user says about it.
    pub fn with(mut self, flags: &ContainerFlags) -> Container {
        flags.edit_process(&mut self.process);
        self.flags = flags.clone();
        self
    }

    /// Finds what is to be mounted of the host, directories as shares of that kind.
    pub fn find_mounts(&mut self, kind: ShareKind) -> Result<()> {
        let shares = Shares::New { binds: &mut self.binds, kind };
        self.mounts = Mounts::find(self.flags.mounts.all(), shares)?;
        Ok(())
    }

    /// The same in a pod that runs, whose first container mounts `shared`.
    pub fn find_mounts_in(&mut self, shared: &[Mounted]) -> Result<()> {
        self.mounts = Mounts::find(self.flags.mounts.all(), Shares::OfPod(shared))?;
        Ok(())
    }

    pub fn from_image(
        image: &Image,
        words: &[String],
        flags: &ProcessFlags,
        tty: bool,
    ) -> Result<Container> {
        let config = &image.description.config;
        let (args, name) = (config.command(words), &image.description.name);
        if args.is_empty() {
            return Err(Error::new(format!("run {name:?}: the image has no command of its own"))
                .hint(format!("say what to run: hyperctl run {name} COMMAND")));
        }
        let env = environment(config, flags, tty, |name| env::var(name).ok());
        let cwd = working_directory(flags.workdir.as_deref(), Path::new(&config.working_dir))?;
        let user = flags.user.as_deref().unwrap_or(&config.user);
        Ok(Container {
            label: name.clone(),
            root: Root::Image { layers: image.layers.clone() },
            binds: Binds::default(),
            mounts: Mounts::default(),
            process: default_process(args, env, cwd, hyperstart::spec::user(user), tty),
            config: None,
            bundle: None,
            stop_signal: config.stop_signal.clone(),
            volumes: image_volumes::of(config).context(|| format!("run {name:?}"))?,
            flags: ContainerFlags::default(),
        })
    }

    /// `words`, if there are any, replace the bundle's args; other flags its other words.
    pub fn from_bundle(
        bundle: &Path,
        words: &[String],
        flags: &ProcessFlags,
        tty: bool,
    ) -> Result<Container> {
        let operation = || format!("read bundle {bundle:?}");
        let mut config = config::load(bundle).context(operation)?;
        let root = config.root().as_ref().ok_or_else(|| Error::new("config.json has no root"));
        let rootfs = bundle.join(root.context(operation)?.path());
        let path = find_rootfs(&rootfs)?;
        let binds = Binds::take(&mut config, bundle).context(operation)?;
        let process = config.process().clone();
        let process = process.ok_or_else(|| Error::new("config.json has no process"));
        let mut process = process.context(operation)?;
        change(&mut process, words, flags, tty, None)?;
        Ok(Container {
            label: bundle.display().to_string(),
            root: Root::Directory { path },
            binds,
            mounts: Mounts::default(),
            process,
            config: Some(config),
            bundle: Some(bundle.to_path_buf()),
            stop_signal: String::new(),
            volumes: Vec::new(),
            flags: ContainerFlags::default(),
        })
    }

    pub fn tty(&self) -> bool {
        self.process.terminal().unwrap_or(false)
    }

    /// The hooks of its bundle that run on the host, for container `id`.
    pub fn hooks(&self, id: &str) -> Hooks {
        Hooks::of(self.bundle.as_deref().zip(self.config.as_ref()), id)
    }

    /// The spec of container `id`, whose root the guest has at `root`. Where the pod shares its pid namespace, a
    /// bundle's config.json still says whether the container has one of its own.
    pub fn spec_for(&self, id: &ContainerId, root: &str, shares_pids: bool) -> Spec {
        let mut spec = match &self.config {
            None => default_spec(id, self.process.clone()), // its host name is the pod's
            Some(config) => {
                let mut spec = config.clone();
                spec.set_process(Some(self.process.clone()));
                spec
            }
        };
        let mut place = spec.root().clone().unwrap_or_else(OciRoot::default);
        place.set_path(PathBuf::from(root));
        spec.set_root(Some(place));
        if self.config.is_none() && shares_pids {
            share_pids(&mut spec);
        }
        self.flags.edit_spec(&mut spec);
        self.mounts.edit_spec(id, &mut spec);
        image_volumes::add(&self.volumes, &mut spec);
        spec
    }

    /// What the guest mounts for container `id`; the last mount point is its root. `attached` is where its layers are,
    /// in their order.
    pub fn storages(&self, id: &ContainerId, attached: &[Attached]) -> Result<Vec<Storage>> {
        match &self.root {
            Root::Image { .. } => {
                let mut storages: Vec<Storage> =
                    attached.iter().map(layer).collect::<Result<_>>()?;
                let overlay = Storage::overlay(id, &storages);
                storages.push(self.flags.user_namespace.root(overlay));
                Ok(storages)
            }
            Root::Directory { .. } => Ok(vec![Storage::shared_rootfs(id, ROOTFS_TAG)]),
        }
    }
}

fn layer(Attached { driver, source, name }: &Attached) -> Result<Storage> {
    let name = ContainerId::new(name).map_err(|err| Error::new(err.to_string()))?;
    Ok(Storage::image(driver, source, &name))
}

/// A container that lists no pid namespace is in the sandbox's.
fn share_pids(spec: &mut Spec) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Pid);
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
}

/// The process of an exec: the container's own, with other words.
pub fn exec_process(
    base: &Process,
    words: &[String],
    flags: &ProcessFlags,
    tty: bool,
) -> Result<Process> {
    let mut process = base.clone();
    process.set_terminal(Some(tty));
    change(&mut process, words, flags, tty, Some("TERM=xterm"))?;
    Ok(process)
}

fn change(
    process: &mut Process,
    words: &[String],
    flags: &ProcessFlags,
    tty: bool,
    term: Option<&str>,
) -> Result<()> {
    if !words.is_empty() {
        process.set_args(Some(words.to_vec()));
    }
    if tty {
        process.set_terminal(Some(true));
    }
    let mut env = process.env().clone().unwrap_or_default();
    if let Some(term) = term.filter(|_| tty) {
        set_default(&mut env, term);
    }
    set_all(&mut env, &flags.env, |name| env::var(name).ok());
    process.set_env(Some(env));
    process.set_cwd(working_directory(flags.workdir.as_deref(), process.cwd())?);
    if let Some(user) = &flags.user {
        process.set_user(hyperstart::spec::user(user));
    }
    Ok(())
}

/// The directory itself: a link there may be another's, of whom a container had the bundle before (CVE-2020-2026).
fn find_rootfs(rootfs: &Path) -> Result<PathBuf> {
    let operation = || format!("find rootfs {rootfs:?}");
    if fs::symlink_metadata(rootfs).context(operation)?.is_symlink() {
        return Err(Error::new("it is a symbolic link")
            .hint("say in config.json's root.path where the directory itself is"))
        .context(operation);
    }
    fs::canonicalize(rootfs).context(operation)
}

/// The image's variables and docker's defaults, then the user's.
fn environment(
    config: &ImageConfig,
    flags: &ProcessFlags,
    tty: bool,
    ours: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut env = config.env.clone();
    set_default(&mut env, DEFAULT_PATH);
    if tty {
        set_default(&mut env, "TERM=xterm");
    }
    set_all(&mut env, &flags.env, ours);
    env
}

fn set_all(env: &mut Vec<String>, flags: &[String], ours: impl Fn(&str) -> Option<String>) {
    for flag in flags {
        if flag.contains('=') {
            set(env, flag.clone());
        } else if let Some(value) = ours(flag) {
            set(env, format!("{flag}={value}"));
        }
    }
}

fn set(env: &mut Vec<String>, variable: String) {
    let is_same = |other: &String| name(other) == name(&variable);
    match env.iter().position(is_same).and_then(|at| env.get_mut(at)) {
        Some(old) => *old = variable,
        None => env.push(variable),
    }
}

fn set_default(env: &mut Vec<String>, variable: &str) {
    if !env.iter().any(|other| name(other) == name(variable)) {
        env.push(variable.to_string());
    }
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn working_directory(flag: Option<&Path>, image: &Path) -> Result<PathBuf> {
    let dir = flag.unwrap_or(image);
    if dir.as_os_str().is_empty() {
        return Ok(PathBuf::from("/"));
    }
    if !dir.is_absolute() {
        return Err(Error::new(format!("working directory {dir:?}: not absolute")));
    }
    Ok(dir.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(env: &[&str]) -> ProcessFlags {
        ProcessFlags { env: env.iter().map(|e| (*e).into()).collect(), ..ProcessFlags::default() }
    }

    #[test]
    fn the_users_variables_win_over_the_images_and_those_over_the_defaults() {
        let config = ImageConfig {
            env: vec!["PATH=/opt".into(), "A=image".into()],
            ..ImageConfig::default()
        };
        let ours = |name: &str| (name == "SECRET").then(|| "s".to_string());
        let env = environment(&config, &flags(&["A=user", "SECRET", "ABSENT", "B="]), true, ours);
        assert_eq!(env, ["PATH=/opt", "A=user", "TERM=xterm", "SECRET=s", "B="]);
        let plain = environment(&ImageConfig::default(), &flags(&[]), false, ours);
        assert_eq!(plain, [DEFAULT_PATH]);
    }

    #[test]
    fn a_working_directory_is_absolute() {
        assert_eq!(working_directory(None, Path::new("")).unwrap(), Path::new("/"));
        assert_eq!(working_directory(None, Path::new("/w")).unwrap(), Path::new("/w"));
        let flag = working_directory(Some(Path::new("/f")), Path::new("/w"));
        assert_eq!(flag.unwrap(), Path::new("/f"));
        assert!(working_directory(Some(Path::new("f")), Path::new("/")).is_err());
    }

    fn bundle(config: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        dir
    }

    const CONFIG: &str = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": ["A=1"]}}"#;

    #[test]
    fn a_bundle_keeps_its_own_words_unless_others_are_given() {
        let dir = bundle(CONFIG);
        let own = Container::from_bundle(dir.path(), &[], &flags(&["A=2"]), false).unwrap();
        let spec = own.spec_for(&ContainerId::new("c1").unwrap(), "/run/r", true);
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["true"]);
        assert_eq!(process.env().as_ref().unwrap(), &["A=2"]);
        assert_eq!(spec.hostname().as_deref(), None, "as its config.json has it");
        let root = spec.root().as_ref().unwrap();
        assert_eq!((root.path().as_path(), root.readonly()), (Path::new("/run/r"), Some(true)));
        let words = ["ls".to_string()];
        let other = Container::from_bundle(dir.path(), &words, &flags(&[]), true).unwrap();
        assert!(other.tty());
    }

    #[test]
    fn a_bundle_without_a_config_says_what_a_bundle_is() {
        let dir = tempfile::tempdir().unwrap();
        let err = Container::from_bundle(dir.path(), &[], &flags(&[]), false).unwrap_err();
        assert!(err.to_string().contains("hint: an OCI bundle holds"), "{err}");
    }
}
