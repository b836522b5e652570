//! From clone3 to execve: how a child becomes a process of a container. The order below is the content.
//!
//! The child is a copy of PID 1 with one thread, so it may allocate and format; it ends in execve or _exit and returns
//! to nobody. Each failure is reported over its socket as an error that names the step, and PID 1 answers the host.

use std::convert::Infallible;
use std::fs;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{CWD, Mode, OFlags, Uid, fchown, openat};
use rustix::process::{DumpableBehavior, fchdir, getcwd, set_dumpable_behavior, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::hooks::HookRunner;
use super::id::ContainerId;
use super::program::{Program, has_home};
use super::rootfs::Rootfs;
use super::spec::{CapabilitySet, ContainerSpec, Execution, ProcessSpec};
use super::terminal::{self, Terminal};
use super::tree::{Leaf, Links, Tree};
use super::user_namespace::UserNamespace;
use super::{devices, hidden, mounts, namespaces, process_one, rlimits, scheduling, sysctls, user};
use crate::error::{Code, Context, Error, Result};
use crate::report::Reporter;
use crate::stdio::ChildStdio;
use crate::sys::process::{close_all_but, exit_now, reset_sigpipe};

/// What the first process of a container is made from.
pub struct FirstSpec {
    pub id: ContainerId,
    pub container: ContainerSpec,
    pub stdio: Option<ChildStdio>, // none: a terminal, which the child makes
    pub report: Reporter,
}

/// What a process that joins a container is made from.
pub struct ExecSpec {
    pub process: ProcessSpec,
    pub execution: Execution,
    pub first: OwnedFd, // a pidfd
    pub in_user_namespace: bool,
    pub stdio: Option<ChildStdio>,
    pub report: Reporter,
}

/// The first process of the container that another one joins.
struct First<'a> {
    pidfd: &'a OwnedFd,
    in_user_namespace: bool,
}

/// The entry of a container's first process.
pub fn first(spec: FirstSpec) -> ! {
    let FirstSpec { id, container, stdio, report } = spec;
    end(&report, become_first(&id, container, stdio, &report))
}

/// The entry of a process that joins a container. What it takes stays with PID 1 if there is no child.
pub fn exec(spec: &mut Option<ExecSpec>) -> ! {
    let Some(spec) = spec.take() else { exit_now(126) };
    let ExecSpec { process, execution, first, in_user_namespace, stdio, report } = spec;
    let first = First { pidfd: &first, in_user_namespace };
    end(&report, become_exec(process, &execution, &first, stdio, &report))
}

/// 127 and 126 are what shells say; nobody sees them but who looks at a container that did not start.
pub fn end(report: &Reporter, failure: Result<Infallible>) -> ! {
    match failure {
        Ok(never) => match never {},
        Err(err) => {
            report.failed(&err);
            exit_now(if err.code() == Code::NotFound { 127 } else { 126 })
        }
    }
}

fn become_first(
    id: &ContainerId,
    mut spec: ContainerSpec,
    stdio: Option<ChildStdio>,
    report: &Reporter,
) -> Result<Infallible> {
    leave_pid_1(stdio, &[report.as_fd()])?;
    let mut user_namespace = namespaces::enter(&spec.namespaces)?;
    adjust_oom_score(spec.process.oom_score_adj)?; // through the guest's /proc, as the sysctls
    namespaces::configure(&spec.namespaces, &spec.hostname, &spec.domainname)?;
    let ipc_owner = user_namespace.as_ref().map(UserNamespace::ipc_owner).transpose()?.flatten();
    sysctls::apply(&spec.sysctls, ipc_owner)?; // before /proc/sys can become read-only
    let ourselves = Program::ourselves()?;
    let mut plan = mounts::plan(&spec.mounts)?;
    let mut root = (0, 0);
    if let Some(user_namespace) = &mut user_namespace {
        root = user_namespace.root()?;
        user_namespace.act_as_root()?; // from here on there are files made
        user_namespace.keep_shared(&plan, spec.root.propagation);
        user_namespace.translate_mounts(&mut plan)?;
        user_namespace.translate_devices(&mut spec.devices)?;
    }
    let mut rootfs = Rootfs::attach(&spec.root, &plan)?;
    rootfs.mount_all(&plan)?;
    if let Some(user_namespace) = &user_namespace {
        user_namespace.own_mounts(rootfs.tree(), &plan)?;
    }
    if mounts::makes_devices(&spec.mounts) {
        devices::populate(rootfs.tree(), &spec.devices, root)?; // umask is 0
    } else {
        devices::find_or_make(rootfs.tree(), &spec.devices)?;
    }
    let terminal = open_terminal(rootfs.tree(), &spec.process)?;
    if let Some(terminal) = &terminal {
        terminal.bind_console(rootfs.tree())?;
    }
    make_working_directory(rootfs.tree(), &spec.process.cwd)?;
    hidden::make_read_only(&rootfs, &spec.readonly_paths)?;
    hidden::mask(&rootfs, &spec.masked_paths)?;
    rootfs.seal(&spec.root)?; // after all that writes
    let hooks = HookRunner::new(spec.hooks.as_deref(), id, &spec.root.path, ourselves)?;
    if let Some(hooks) = &hooks {
        hooks.create_container()?; // the guest's paths are there, and the container's mounts
    }
    let tree = rootfs.pivot(spec.root.propagation)?; // the guest's paths are gone
    let program = become_process(
        &tree,
        spec.process,
        &spec.execution,
        terminal.as_ref(),
        user_namespace.as_ref(),
    )?;
    report.ready(terminal.as_ref().map(|terminal| terminal.master.as_fd()))?;
    drop((terminal, user_namespace));
    if !report.wait()? {
        exit_now(0); // let go before it was started
    }
    if let Some(hooks) = &hooks {
        hooks.start_container()?;
    }
    let filter = spec.execution.filter.as_deref();
    if spec.init {
        return process_one::run_beneath(program, &ourselves, filter, report);
    }
    program.run(&ourselves, filter)
}

fn become_exec(
    spec: ProcessSpec,
    execution: &Execution,
    first: &First<'_>,
    stdio: Option<ChildStdio>,
    report: &Reporter,
) -> Result<Infallible> {
    let First { pidfd: first, in_user_namespace } = *first;
    leave_pid_1(stdio, &[report.as_fd(), first.as_fd()])?;
    if let Some(cpus) = &spec.cpu_affinity.last {
        let field = || "process.execCPUAffinity.final".to_owned();
        scheduling::run_on(cpus).context(field)?; // it was born in the container's cgroup
    }
    adjust_oom_score(spec.oom_score_adj)?;
    let ourselves = Program::ourselves()?;
    let user_namespace =
        in_user_namespace.then(|| UserNamespace::of_process(first.as_fd())).transpose()?;
    namespaces::join(first.as_fd())?;
    if let Some(user_namespace) = &user_namespace {
        user_namespace.act_as_root()?; // a terminal is to be the user's own
    }
    let tree = Tree::of_root()?;
    let terminal = open_terminal(&tree, &spec)?;
    let program =
        become_process(&tree, spec, execution, terminal.as_ref(), user_namespace.as_ref())?;
    report.ready(terminal.as_ref().map(|terminal| terminal.master.as_fd()))?;
    drop((terminal, user_namespace));
    program.run(&ourselves, execution.filter.as_deref())
}

/// What a copy of PID 1 must drop first of all. Its descriptors: other processes' pipes stay open while a copy is held,
/// and 0 to 2 are the guest's console. Its signal mask, and the SIGPIPE that Rust ignores: execve(2) would keep both.
pub fn leave_pid_1(stdio: Option<ChildStdio>, keep: &[BorrowedFd<'_>]) -> Result<()> {
    // Until execve, nobody in the container may look into this copy or its descriptors (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context(|| "set dumpable".to_owned())?;
    connect_first(stdio).context(|| "connect stdio".to_owned())?;
    close_all_but(keep).context(|| "close descriptors".to_owned())?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .context(|| "reset signals".to_owned())?;
    reset_sigpipe().context(|| "reset signals".to_owned())?;
    setsid().context(|| "setsid".to_owned())?;
    umask(Mode::empty());
    Ok(())
}

/// The pipes, or with a terminal nothing until there is one.
fn connect_first(stdio: Option<ChildStdio>) -> rustix::io::Result<()> {
    match stdio {
        Some(ChildStdio { stdin, stdout, stderr }) => connect(&stdin, &stdout, &stderr),
        None => {
            let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            connect(&null, &null, &null)
        }
    }
}

fn connect(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> rustix::io::Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)
}

fn adjust_oom_score(score: i32) -> Result<()> {
    fs::write("/proc/self/oom_score_adj", score.to_string())
        .context(|| format!("set oom_score_adj {score}"))
}

fn open_terminal(tree: &Tree, spec: &ProcessSpec) -> Result<Option<Terminal>> {
    if !spec.terminal {
        return Ok(None);
    }
    terminal::open(tree, spec.console_size).map(Some)
}

/// The part that a container's first process and the later ones have in common: everything but the program itself.
fn become_process(
    tree: &Tree,
    mut spec: ProcessSpec,
    execution: &Execution,
    terminal: Option<&Terminal>,
    user_namespace: Option<&UserNamespace>,
) -> Result<Program> {
    let credentials = user::resolve(tree, &spec.user, !has_home(&spec.env))?;
    let mut owner = credentials.uid; // of its streams, as the guest has it
    if let Some(user_namespace) = user_namespace {
        user_namespace.check(&credentials)?;
        owner = user_namespace.uid(credentials.uid)?;
    }
    let (args, env) = (mem::take(&mut spec.args), mem::take(&mut spec.env));
    let program = Program::new(args, env, &credentials.home)?;
    if let Some(terminal) = terminal {
        terminal.control()?;
        let slave = &terminal.slave;
        connect(slave, slave, slave).context(|| "connect the terminal".to_owned())?;
    }
    give_streams(owner).context(|| format!("give stdio to uid {}", credentials.uid))?;
    let entered = enter_working_directory(tree, &spec.cwd);
    rlimits::apply(&spec.rlimits)?; // before CAP_SYS_RESOURCE goes
    scheduling::apply(&spec, execution)?; // before CAP_SYS_NICE goes
    let renewed;
    let mut tree = tree;
    if let Some(user_namespace) = user_namespace {
        user_namespace.enter()?; // with all of the guest's rights: before capabilities are what the spec says
        renewed = Tree::of_root()?;
        tree = &renewed;
        if let Some(terminal) = terminal {
            let slave = terminal.slave_in(tree)?;
            connect(&slave, &slave, &slave).context(|| "connect the terminal".to_owned())?;
        }
    }
    // To load a filter takes CAP_SYS_ADMIN, or no_new_privs; what is kept for that ends with execve.
    let loads_filter = execution.filter.is_some() && !spec.no_new_privileges;
    let until_exec = if loads_filter { CapabilitySet::SYS_ADMIN } else { CapabilitySet::empty() };
    user::assume(&credentials, &spec.capabilities, until_exec, spec.no_new_privileges)?;
    match entered {
        // A directory of a network filesystem may be open to the user, and not to root.
        Err(err) if err.code() == Code::PermissionDenied => {
            enter_working_directory(tree, &spec.cwd)?
        }
        entered => entered?,
    }
    umask(Mode::from_raw_mode(spec.umask));
    Ok(program)
}

/// Images open /dev/stdout by its name, so the streams must be the user's own.
fn give_streams(uid: u32) -> rustix::io::Result<()> {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        fchown(stream, Some(Uid::from_raw(uid)), None)?;
    }
    Ok(())
}

/// OCI has the runtime make a container's working directory where it is missing; a later process must find its own.
fn make_working_directory(tree: &Tree, cwd: &str) -> Result<()> {
    tree.create(cwd, Leaf::Directory).map(drop).context(|| format!("cwd {cwd:?}"))
}

/// The way there may go through links but through no magic one, and must end inside the root (CVE-2024-21626).
fn enter_working_directory(tree: &Tree, cwd: &str) -> Result<()> {
    let enter = || -> Result<()> {
        fchdir(tree.open(cwd, OFlags::PATH | OFlags::DIRECTORY, Links::Follow)?)?;
        if getcwd(Vec::new())?.as_bytes().first() == Some(&b'/') {
            return Ok(());
        }
        Err(Error::new(Code::InvalidArgument, "outside the root"))
    };
    enter().context(|| format!("cwd {cwd:?}"))
}
