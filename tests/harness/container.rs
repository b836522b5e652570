//! Containers of a test: what to run, and what came of it.

use crate::PATIENCE;
use hyperstart::{
    Container, ContainerId, ContainerOptions, ExecId, Output, PodContainer, Process, Result,
    Storage, spec,
};
use oci_spec::runtime::{self, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use crate::facts::Facts;
use crate::vm::Vm;

/// Which image a container has as its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    Probe,
    Busybox,
}

/// A container to be: an image, a process, and changes to the spec that everybody gets.
#[derive(Clone)]
pub struct Run {
    image: Image,
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
    user: String,
    terminal: bool,
    init: bool,
    ids: Option<u32>,
    stdin: Vec<u8>,
    storages: Vec<Storage>,
}

impl Run {
    /// The probe with these words.
    pub fn probe<const N: usize>(words: [&str; N]) -> Self {
        let args = std::iter::once("/probe").chain(words).map(str::to_owned).collect();
        Self::of(Image::Probe, args)
    }

    /// Any words, in the probe's image.
    pub fn words<const N: usize>(words: [&str; N]) -> Self {
        Self::of(Image::Probe, words.map(str::to_owned).into())
    }

    /// A script for busybox's shell.
    pub fn shell(script: &str) -> Self {
        Self::of(Image::Busybox, ["/bin/sh", "-c", script].map(str::to_owned).into())
    }

    /// An applet of busybox, without a shell around it.
    pub fn busybox<const N: usize>(words: [&str; N]) -> Self {
        Self::of(Image::Busybox, words.map(str::to_owned).into())
    }

    fn of(image: Image, args: Vec<String>) -> Self {
        let env = vec!["PATH=/bin:/sbin:/usr/bin:/usr/sbin:/".to_owned()];
        let (cwd, user, stdin, storages) = ("/".to_owned(), String::new(), Vec::new(), Vec::new());
        Self {
            image,
            args,
            env,
            cwd,
            user,
            terminal: false,
            init: false,
            ids: None,
            stdin,
            storages,
        }
    }

    /// More words.
    pub fn args(mut self, words: &[String]) -> Self {
        self.args.extend_from_slice(words);
        self
    }

    pub fn env(mut self, variable: &str) -> Self {
        self.env.push(variable.to_owned());
        self
    }

    pub fn cwd(mut self, path: &str) -> Self {
        self.cwd = path.to_owned();
        self
    }

    /// As `docker run -u` takes it.
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// As `docker run --init`.
    pub fn init(mut self) -> Self {
        self.init = true;
        self
    }

    /// In a user namespace, with an image whose files are its own; `first` is its root in the guest.
    pub fn ids(mut self, first: u32) -> Self {
        self.ids = Some(first);
        self
    }

    /// Mounted in the guest before the container is made, besides its root.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storages.push(storage);
        self
    }

    /// What the process reads before its input ends.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_owned();
        self
    }

    /// The process, as OCI has it.
    pub fn process(&self) -> runtime::Process {
        let (args, env) = (self.args.clone(), self.env.clone());
        spec::default_process(args, env, &self.cwd, spec::user(&self.user), self.terminal)
    }

    /// The spec that everybody gets, for this process.
    pub fn spec(&self, id: &ContainerId) -> Spec {
        let mut spec = spec::default_spec(id, self.process());
        if let Some(first) = self.ids {
            spec::map_ids(&mut spec, first);
        }
        spec
    }
}

/// How a process ended, and all that it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub code: u8,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Finished {
    /// What the probe said, of a process that has to be content with itself.
    pub fn facts(&self) -> Facts {
        assert_eq!((self.code, self.stderr()), (0, ""), "said {:?}", self.stdout());
        Facts::parse(self.stdout())
    }

    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is text")
    }

    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("stderr is text")
    }
}

impl Vm {
    /// A container to be, after `change` of its spec.
    pub fn describe(
        &self,
        name: &str,
        run: &Run,
        change: impl FnOnce(&mut Spec),
    ) -> Result<PodContainer> {
        let id = ContainerId::new(name)?;
        let mut spec = run.spec(&id);
        change(&mut spec);
        let (disk, image) = match run.image {
            Image::Probe => (Self::PROBE_DISK, "probe"),
            Image::Busybox => (Self::BUSYBOX_DISK, "busybox"),
        };
        let device = self.machine().disk_device(disk).expect("both images are attached");
        let image = Storage::image(device.driver, &device.source, &ContainerId::new(image)?);
        let mut overlay = Storage::overlay(&id, std::slice::from_ref(&image));
        if let Some(first) = run.ids {
            overlay = overlay.idmapped(first);
        }
        let mut storages = vec![image, overlay];
        storages.extend(run.storages.iter().cloned());
        let options = ContainerOptions { storages, init: run.init, ..Default::default() };
        Ok(PodContainer { id, spec, options })
    }

    /// Makes a container after `change` of its spec; it does not run yet.
    pub fn try_create(
        &self,
        name: &str,
        run: &Run,
        change: impl FnOnce(&mut Spec),
    ) -> Result<Container> {
        let PodContainer { id, spec, options } = self.describe(name, run, change)?;
        self.run("create a container", self.sandbox().create_container(&id, &spec, options))
    }

    /// Makes a container of the spec that everybody gets.
    pub fn create(&self, name: &str, run: &Run) -> Running<'_> {
        self.create_with(name, run, |_| {})
    }

    /// Makes a container after `change` of its spec.
    pub fn create_with(
        &self,
        name: &str,
        run: &Run,
        change: impl FnOnce(&mut Spec),
    ) -> Running<'_> {
        let container = self.try_create(name, run, change).unwrap_or_else(|err| panic!("{err}"));
        let process = container.process();
        Running::new(self, container, process, run)
    }

    /// Makes a container and starts it.
    pub fn start(&self, name: &str, run: &Run) -> Running<'_> {
        self.create(name, run).started()
    }

    /// Makes a container after `change` of its spec, and starts it.
    pub fn start_with(&self, name: &str, run: &Run, change: impl FnOnce(&mut Spec)) -> Running<'_> {
        self.create_with(name, run, change).started()
    }

    /// Runs a container to its end and removes it.
    pub fn finish(&self, name: &str, run: &Run) -> Finished {
        self.finish_with(name, run, |_| {})
    }

    /// Runs a container, after `change` of its spec, to its end and removes it.
    pub fn finish_with(&self, name: &str, run: &Run, change: impl FnOnce(&mut Spec)) -> Finished {
        let running = self.create_with(name, run, change).started();
        let finished = running.finish();
        running.remove();
        finished
    }

    /// What the probe says of itself in a container of its own.
    pub fn view(&self, name: &str) -> Facts {
        self.finish(name, &Run::probe(["view"])).facts()
    }
}

/// A container, or an exec in one.
pub struct Running<'vm> {
    vm: &'vm Vm,
    container: Container,
    process: Process,
    stdin: Vec<u8>,
    /// One stream for all who read: a second one would share the bytes with the first.
    stdout: Mutex<Output>,
}

impl<'vm> Running<'vm> {
    /// Of a container that a test has made by itself.
    pub fn new(vm: &'vm Vm, container: Container, process: Process, run: &Run) -> Self {
        let stdout = Mutex::new(process.stdout());
        Self { vm, container, process, stdin: run.stdin.clone(), stdout }
    }

    /// Starts it, which must succeed.
    pub fn started(self) -> Self {
        self.vm
            .run("start a container", self.container.start())
            .unwrap_or_else(|err| panic!("{err}"));
        self
    }

    /// The library's handle.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The library's handle.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs one more process in the container.
    pub fn try_exec(&self, name: &str, run: &Run) -> Result<Running<'vm>> {
        self.try_exec_with(name, run, |_| {})
    }

    /// Runs one more process in the container, after `change` of what everybody gets.
    pub fn try_exec_with(
        &self,
        name: &str,
        run: &Run,
        change: impl FnOnce(&mut runtime::Process),
    ) -> Result<Running<'vm>> {
        let mut process = run.process();
        change(&mut process);
        let exec = self.container.exec(ExecId::new(name)?, &process);
        let process = self.vm.run("exec", exec)?;
        Ok(Running::new(self.vm, self.container.clone(), process, run))
    }

    /// Runs one more process in the container.
    pub fn exec(&self, name: &str, run: &Run) -> Running<'vm> {
        self.try_exec(name, run).unwrap_or_else(|err| panic!("{err}"))
    }

    /// Gives the process its input, reads all that it says, and waits for its end.
    pub fn finish(&self) -> Finished {
        let process = &self.process;
        let feed = async {
            let mut stdin = process.stdin();
            // A process that does not read its input may be gone before it has come.
            let written = async {
                stdin.write_all(&self.stdin).await?;
                stdin.shutdown().await
            };
            if let Err(err) = written.await {
                assert!(self.stdin.is_empty(), "write stdin: {err}");
            }
        };
        let finished = async {
            tokio::join!(
                feed,
                async { read_to_end(&mut *self.stdout.lock().await).await },
                async { read_to_end(&mut process.stderr()).await },
                process.wait()
            )
        };
        let ((), stdout, stderr, status) = self.vm.run("the end of a process", finished);
        Finished { code: status.unwrap_or_else(|err| panic!("{err}")).code(), stdout, stderr }
    }

    /// Waits until the process has said `line` on its stdout, and nothing else before.
    pub fn says(&self, line: &str) {
        let mut got = vec![0; line.len() + 1];
        let read = async { self.stdout.lock().await.read_exact(&mut got).await };
        self.vm
            .run(&format!("{line:?} on stdout"), read)
            .unwrap_or_else(|err| panic!("wait for {line:?}: {err}"));
        assert_eq!(String::from_utf8_lossy(&got), format!("{line}\n"));
    }

    /// The next line on its stdout.
    pub fn line(&self) -> String {
        let read = async {
            let (mut line, mut stdout) = (Vec::new(), self.stdout.lock().await);
            loop {
                match stdout.read_u8().await? {
                    b'\n' => return Ok::<_, std::io::Error>(line),
                    byte => line.push(byte),
                }
            }
        };
        let line = self.vm.run("a line on stdout", read).unwrap_or_else(|err| panic!("{err}"));
        String::from_utf8(line).expect("stdout is text")
    }

    /// Waits for the end and gives the exit code.
    pub fn wait(&self) -> u8 {
        let status = self.vm.run("the end of a process", self.process.wait());
        status.unwrap_or_else(|err| panic!("{err}")).code()
    }

    /// Signals this process alone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = u32::try_from(signal).expect("a signal's number");
        self.vm.run("signal a process", self.process.signal(signal))
    }

    /// Kills the container and waits for its end.
    pub fn kill(&self) -> u8 {
        self.vm
            .run("kill a container", self.container.signal(9))
            .unwrap_or_else(|err| panic!("{err}"));
        self.wait()
    }

    /// Removes the container, whatever runs in it.
    pub fn remove(&self) {
        self.vm
            .run("remove a container", self.container.remove(PATIENCE))
            .unwrap_or_else(|err| panic!("{err}"));
    }
}

async fn read_to_end(stream: &mut Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap_or_else(|err| panic!("read output: {err}"));
    bytes
}
