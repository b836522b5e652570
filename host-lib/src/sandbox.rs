//! The sandbox: one VM, from the first connection to power-off, and what its guest tells of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperstart_protocol::PROTOCOL_MAJOR;
use hyperstart_protocol::agent::{
    CreateSandboxRequest, DestroySandboxRequest, GetOOMEventRequest, GuestDetailsRequest,
};
use hyperstart_protocol::guest::{BootReceiptRequest, BootReceiptResponse, VersionRequest};
use hyperstart_protocol::health::CheckRequest;
use oci_spec::runtime;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{self, CALL, ConnectOptions, Connection, UNBOUNDED};
use crate::container::{Container, ContainerOptions};
use crate::error::{Cause, Code, Error, Result, printable};
use crate::id::ContainerId;
use crate::storage::{self, Storage};
use crate::transport::Transport;

/// How long the guest may take to say that it serves, as Kata's runtimes have it.
const CHECK: Option<Duration> = Some(Duration::from_secs(30));

/// More boot steps than any guest has.
const STEPS_MAX: usize = 256;

/// What a sandbox is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    /// The sandbox's id, for the guest's own records. May be empty.
    pub id: String,
    /// The host name that containers see unless their spec has its own. Empty: the guest's default.
    pub hostname: String,
    /// The lines of /etc/resolv.conf, as resolv.conf(5) has them. Empty: containers keep their image's file.
    pub dns: Vec<String>,
    /// There is a pid namespace that containers share unless their spec lists one of their own.
    pub shared_pid: bool,
    /// Mounted for the sandbox as a whole, in this order: a share that containers use, for instance.
    pub storages: Vec<Storage>,
}

impl From<SandboxConfig> for CreateSandboxRequest {
    fn from(SandboxConfig { id, hostname, dns, shared_pid, storages }: SandboxConfig) -> Self {
        Self {
            sandbox_id: id,
            hostname,
            dns,
            sandbox_pidns: shared_pid,
            storages: storage::to_wire(storages),
            ..Self::default()
        }
    }
}

/// Which agent answers (`grpc.Health/Version`). Free text, to be shown and not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentVersion {
    /// The agent's release.
    pub agent: String,
    /// The version of Kata's agent API.
    pub api: String,
}

/// Which hyperstart guest answers (`hyperstart.v1.Guest/Version`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestVersion {
    /// The guest's release. Free text.
    pub guest: String,
    /// The protocol's major and minor version.
    pub protocol: (u32, u32),
    /// What the guest can do beyond Kata's API, one word each.
    pub capabilities: Vec<String>,
    /// The release of the guest's kernel (uname(2)).
    pub kernel_release: String,
}

/// When each step of the boot was done, and what was booted (`hyperstart.v1.Guest/BootReceipt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootReceipt {
    /// What has been done so far, in order.
    pub steps: Vec<BootStep>,
    /// Frequency of the time stamp counter in kHz; `None` when the guest does not know it.
    pub tsc_khz: Option<u64>,
    /// `initrd`, `dax`, or `disk`: an image that is read, not mapped.
    pub boot_mode: String,
    /// File system type of the guest's own root.
    pub root_fstype: String,
    /// The guest's root is mapped straight from the host's memory.
    pub root_dax: bool,
    /// Each block of it is checked against the hash on the kernel's command line (dm-verity).
    pub root_verity: bool,
    /// The guest's memory in bytes (MemTotal of proc_meminfo(5)) when it became ready.
    pub mem_total_bytes: u64,
    /// What was available of it then, in bytes (MemAvailable).
    pub mem_available_bytes: u64,
}

/// One step of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootStep {
    /// `kernel`, `init`, `mounts`, `listening`, `ready` or `first_container`.
    pub name: String,
    /// When it was done by the guest's CLOCK_MONOTONIC (clock_gettime(2)), which begins with its kernel.
    pub monotonic: Duration,
    /// When it was done in ticks of the time stamp counter; `None` where the machine has none.
    pub tsc: Option<u64>,
}

/// What a guest offers to a runtime (`GetGuestDetails`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDetails {
    /// The agent's release. Free text.
    pub version: String,
    /// The agent is the guest's PID 1.
    pub init_daemon: bool,
    /// The storage drivers that it has.
    pub storage_handlers: Vec<String>,
    /// The device drivers that it has.
    pub device_handlers: Vec<String>,
    /// It can apply seccomp profiles.
    pub supports_seccomp: bool,
    /// The unit of memory hot-plug in bytes; 0 where there is none.
    pub mem_block_size_bytes: u64,
}

/// A guest, and all that runs in it. A clone is another name for the same sandbox; dropping it stops nothing.
#[derive(Clone)]
pub struct Sandbox {
    connection: Arc<Connection>,
    /// How the connection was made; none: out of a stream of the caller's.
    address: Option<Arc<(Transport, ConnectOptions)>>,
}

impl Sandbox {
    /// Connects to a guest, with the default [`ConnectOptions`], and has it say that it serves.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: not within the deadline; the message has the cause of the last try.
    /// [`Code::PermissionDenied`], [`Code::Unimplemented`]: this host will not, or cannot, do it.
    pub async fn connect(transport: &Transport) -> Result<Self> {
        Self::connect_with(transport, ConnectOptions::default()).await
    }

    /// As [`Sandbox::connect`], with deadlines of the caller's.
    ///
    /// # Errors
    /// As [`Sandbox::connect`].
    pub async fn connect_with(transport: &Transport, options: ConnectOptions) -> Result<Self> {
        let connection = Arc::new(connection::connect(transport, options).await?);
        Ok(Self { connection, address: Some(Arc::new((transport.clone(), options))) })
    }

    /// The same guest over a new connection; none: only the caller could make one.
    pub(crate) async fn reconnected(&self) -> Option<Result<Self>> {
        let (transport, options) = self.address.as_deref()?;
        Some(Self::connect_with(transport, *options).await)
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Speaks to the guest at the other end of `stream`, which is past any greeting. Asks it nothing yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn from_stream(stream: impl AsyncRead + AsyncWrite + Send + Sync + 'static) -> Self {
        Self { connection: Arc::new(Connection::new(stream)), address: None }
    }

    /// Makes the sandbox, once, before the first container.
    ///
    /// # Errors
    /// [`Code::AlreadyExists`]: it was made before. Else whatever kept a storage from being mounted.
    pub async fn create(&self, config: &SandboxConfig) -> Result<()> {
        let request = CreateSandboxRequest::from(config.clone());
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.create_sandbox(context, &request).await
        });
        call.await.map_err(Cause::of("create sandbox", ""))?;
        Ok(())
    }

    /// Asks whether the guest serves (`grpc.Health/Check`), for at most 30 s.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: it says that it does not, or the connection was lost.
    /// [`Code::DeadlineExceeded`]: no answer.
    pub async fn check(&self) -> Result<()> {
        self.connection.check(CHECK).await
    }

    /// Asks which agent answers.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn version(&self) -> Result<AgentVersion> {
        let call = self.connection.health(CHECK, |health, context| async move {
            health.version(context, &CheckRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of("ask version of sandbox", ""))?;
        Ok(AgentVersion {
            agent: printable(&answer.agent_version),
            api: printable(&answer.grpc_version),
        })
    }

    /// Asks which hyperstart guest answers.
    ///
    /// # Errors
    /// [`Code::Unimplemented`]: another agent, such as Kata's. [`Code::FailedPrecondition`]: a guest of another major
    /// version of the protocol.
    pub async fn guest_version(&self) -> Result<GuestVersion> {
        const OPERATION: &str = "ask version of guest";
        let call = self.connection.guest(|guest, context| async move {
            guest.version(context, &VersionRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of(OPERATION, ""))?;
        if answer.protocol_major != PROTOCOL_MAJOR {
            let major = answer.protocol_major;
            let cause = format!("it speaks protocol {major}, this library {PROTOCOL_MAJOR}");
            return Err(Error::new(Code::FailedPrecondition, OPERATION, "", cause));
        }
        Ok(GuestVersion {
            guest: printable(&answer.guest_version),
            protocol: (answer.protocol_major, answer.protocol_minor),
            capabilities: words(&answer.capabilities),
            kernel_release: printable(&answer.kernel_release),
        })
    }

    /// Asks how the boot went. Steps that are not done yet are missing.
    ///
    /// # Errors
    /// [`Code::Unimplemented`]: another agent, such as Kata's.
    pub async fn boot_receipt(&self) -> Result<BootReceipt> {
        const OPERATION: &str = "ask boot receipt of guest";
        let call = self.connection.guest(|guest, context| async move {
            guest.boot_receipt(context, &BootReceiptRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of(OPERATION, ""))?;
        if answer.steps.len() > STEPS_MAX {
            let count = answer.steps.len();
            return Err(Error::nonsense(OPERATION, "", format_args!("{count} boot steps")));
        }
        Ok(receipt(answer))
    }

    /// Asks what the guest offers to a runtime.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn details(&self) -> Result<GuestDetails> {
        let request = GuestDetailsRequest { mem_block_size: true, ..Default::default() };
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.get_guest_details(context, &request).await
        });
        let mut answer = call.await.map_err(Cause::of("ask details of sandbox", ""))?;
        let details = answer.agent_details.take().unwrap_or_default();
        Ok(GuestDetails {
            version: printable(&details.version),
            init_daemon: details.init_daemon,
            storage_handlers: words(&details.storage_handlers),
            device_handlers: words(&details.device_handlers),
            supports_seccomp: details.supports_seccomp,
            mem_block_size_bytes: answer.mem_block_size_bytes,
        })
    }

    /// Waits until the kernel has killed a process of a container for want of memory, and says whose. Each kill is told
    /// once, to one caller.
    ///
    /// # Errors
    /// Those of the connection; [`Code::Internal`]: the guest named what is no container id.
    pub async fn next_oom(&self) -> Result<ContainerId> {
        let call = self.connection.agent(UNBOUNDED, |agent, context| async move {
            agent.get_oom_event(context, &GetOOMEventRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of("wait for out-of-memory kill", ""))?;
        ContainerId::new(answer.container_id).map_err(|err| {
            let id = err.object();
            Error::nonsense("wait for out-of-memory kill", "", format_args!("container id {id}"))
        })
    }

    /// Makes a container of an OCI spec. Everything is set up when this returns; [`Container::start`] lets it run.
    ///
    /// `spec.root.path` is a path in the guest: the mount point of one of the storages (see [`Storage::overlay`]).
    ///
    /// # Errors
    /// [`Code::AlreadyExists`]: the id is taken. [`Code::Unimplemented`]: `spec` has a property that the wire does not
    /// carry (see [`spec`](crate::spec)) or the guest does not honour; the message names it.
    /// [`Code::InvalidArgument`]: one that is wrong.
    pub async fn create_container(
        &self,
        id: &ContainerId,
        spec: &runtime::Spec,
        options: ContainerOptions,
    ) -> Result<Container> {
        Container::create(Arc::clone(&self.connection), id, spec, options).await
    }

    /// A handle to a container that was made before. Asks the guest nothing: whether it exists shows when it is used.
    pub fn container(&self, id: ContainerId) -> Container {
        Container::new(Arc::clone(&self.connection), id)
    }

    /// Removes all containers and powers the guest off. The guest answers first; the connection is lost soon after.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn destroy(&self) -> Result<()> {
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.destroy_sandbox(context, &DestroySandboxRequest::new()).await
        });
        call.await.map_err(Cause::of("destroy sandbox", ""))?;
        Ok(())
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sandbox")
    }
}

fn receipt(answer: BootReceiptResponse) -> BootReceipt {
    let some = |number: u64| (number != 0).then_some(number);
    let steps = answer.steps.into_iter().map(|step| BootStep {
        name: printable(&step.name),
        monotonic: Duration::from_nanos(step.monotonic_ns),
        tsc: some(step.tsc),
    });
    BootReceipt {
        steps: steps.collect(),
        tsc_khz: some(answer.tsc_khz),
        boot_mode: printable(&answer.boot_mode),
        root_fstype: printable(&answer.root_fstype),
        root_dax: answer.root_dax,
        root_verity: answer.root_verity,
        mem_total_bytes: answer.mem_total_bytes,
        mem_available_bytes: answer.mem_available_bytes,
    }
}

fn words(words: &[String]) -> Vec<String> {
    words.iter().map(|word| printable(word)).collect()
}
