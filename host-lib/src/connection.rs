//! One ttrpc connection to a guest, shared by all handles, and the two rules that every call on it follows.
//!
//! **A call outlives its caller.** ttrpc closes a connection when a request is dropped half-written, since the stream
//! would be out of step. A caller may well drop a future (`select!`, a timeout); so each call runs as a task of its own
//! and is merely no longer listened to. Such tasks end with the connection: when the last handle is dropped.
//!
//! **A call has a deadline**, except those that wait for something to happen in the guest (an exit, output, an OOM
//! kill).
//!
//! [`connect`] makes the connection: try, and try again within one overall deadline, each try with a limit of its own,
//! because a vsock device may accept a connection that then never carries a byte.

use std::future::Future;
use std::io;
use std::time::Duration;

use hyperstart_protocol::agent_ttrpc::AgentServiceClient;
use hyperstart_protocol::guest::{VersionRequest, VersionResponse};
use hyperstart_protocol::guest_ttrpc::GuestClient;
use hyperstart_protocol::health::CheckRequest;
use hyperstart_protocol::health::health_check_response::ServingStatus;
use hyperstart_protocol::health_ttrpc::HealthClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use crate::error::{Cause, Code, Error, Result};
use crate::liveness::{Lost, Watched};
use crate::spec;
use crate::transport::Transport;

/// How long a call may take that does not wait for something to happen. Kata's runtimes allow the same.
pub(crate) const CALL: Option<Duration> = Some(Duration::from_secs(60));

/// For calls that wait for something to happen in the guest.
pub(crate) const UNBOUNDED: Option<Duration> = None;

/// The pause after a failed try, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// errno(3): the host's kernel has no vsock. It has no `io::ErrorKind`, and the same number on all of Linux's machines
/// that run VMs.
const EAFNOSUPPORT: i32 = 97;

/// How long [`Sandbox::connect_with`](crate::Sandbox::connect_with) tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For all tries together. Default: 30 s.
    pub deadline: Duration,
    /// For one try, until the guest's first answer; a try that takes longer is stuck, and made again. Default: 5 s.
    pub attempt: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), attempt: Duration::from_secs(5) }
    }
}

/// A connection to a guest. Closed when it is dropped.
pub(crate) struct Connection {
    agent: AgentServiceClient,
    guest: GuestClient,
    health: HealthClient,
    /// Never sent to. Calls under way see it go, and end.
    open: watch::Sender<()>,
    lost: Lost,
    /// What the guest can beyond Kata's API, once it was asked.
    capabilities: OnceCell<Vec<String>>,
    /// How it was reached; none: somebody else did.
    transport: Option<Transport>,
}

impl Connection {
    /// Speaks ttrpc on `stream`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + Sync + 'static) -> Self {
        let lost = Lost::default();
        let client = Client::new(Socket::new(Watched::new(Box::pin(stream), lost.clone())));
        Self {
            agent: AgentServiceClient::new(client.clone()),
            guest: GuestClient::new(client.clone()),
            health: HealthClient::new(client),
            open: watch::Sender::new(()),
            lost,
            capabilities: OnceCell::new(),
            transport: None,
        }
    }

    /// How the guest was reached, if that is known.
    pub(crate) fn transport(&self) -> Option<&Transport> {
        self.transport.as_ref()
    }

    /// Whether the guest has a capability. It is asked once.
    pub(crate) async fn can(&self, capability: &str) -> Result<bool, Cause> {
        let ask = async || match self.guest(version).await {
            Ok(answer) => Ok(answer.capabilities),
            Err(cause) if cause.code() == Code::Unimplemented => Ok(Vec::new()),
            Err(cause) => Err(cause),
        };
        let capabilities = self.capabilities.get_or_try_init(ask).await?;
        Ok(capabilities.iter().any(|name| name == capability))
    }

    /// One call of `grpc.AgentService`.
    pub(crate) async fn agent<T, F>(
        &self,
        deadline: Option<Duration>,
        call: impl FnOnce(AgentServiceClient, Context) -> F,
    ) -> Result<T, Cause>
    where
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.run(deadline, call(self.agent.clone(), context(deadline))).await
    }

    /// One call of `hyperstart.v1.Guest` that waits for nothing.
    pub(crate) async fn guest<T, F>(
        &self,
        call: impl FnOnce(GuestClient, Context) -> F,
    ) -> Result<T, Cause>
    where
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.guest_within(CALL, call).await
    }

    /// One call of `hyperstart.v1.Guest`.
    pub(crate) async fn guest_within<T, F>(
        &self,
        deadline: Option<Duration>,
        call: impl FnOnce(GuestClient, Context) -> F,
    ) -> Result<T, Cause>
    where
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.run(deadline, call(self.guest.clone(), context(deadline))).await
    }

    /// One call of `grpc.Health`.
    pub(crate) async fn health<T, F>(
        &self,
        deadline: Option<Duration>,
        call: impl FnOnce(HealthClient, Context) -> F,
    ) -> Result<T, Cause>
    where
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.run(deadline, call(self.health.clone(), context(deadline))).await
    }

    /// Refuses a property that takes an extension of the wire if the guest would pass over it. Asks it once, and only
    /// when there is one.
    pub(crate) async fn check_extension(&self, property: Option<&str>) -> Result<(), Cause> {
        let Some(property) = property else { return Ok(()) };
        match self.can(spec::EXTENSIONS).await? {
            true => Ok(()),
            false => Err(Cause::not_carried(property)),
        }
    }

    /// Has the guest say that it serves.
    pub(crate) async fn check(&self, deadline: Option<Duration>) -> Result<()> {
        const OPERATION: &str = "check sandbox";
        let call = self.health(deadline, |health, context| async move {
            health.check(context, &CheckRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of(OPERATION, ""))?;
        match answer.status.enum_value() {
            Ok(ServingStatus::SERVING) => Ok(()),
            Ok(ServingStatus::NOT_SERVING | ServingStatus::UNKNOWN) => {
                Err(Error::new(Code::Unavailable, OPERATION, "", "the guest does not serve"))
            }
            Err(status) => Err(Error::nonsense(OPERATION, "", format_args!("status {status}"))),
        }
    }

    async fn run<T, F>(&self, deadline: Option<Duration>, call: F) -> Result<T, Cause>
    where
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let started = Instant::now();
        let mut open = self.open.subscribe();
        let task = tokio::spawn(async move {
            tokio::select! {
                answer = call => answer,
                // Only ever an error: the sender is gone, and with it the last handle.
                _ = open.changed() => Err(ttrpc::Error::LocalClosed),
            }
        });
        let answer = task.await.unwrap_or(Err(ttrpc::Error::LocalClosed)); // the runtime ends
        answer.map_err(|err| match (err, deadline) {
            // ttrpc says these two in words; the clock and the stream say the same without guessing.
            (_, Some(deadline)) if started.elapsed() >= deadline => Cause::deadline(deadline),
            (ttrpc::Error::Others(_), _) if self.lost.is_set() => Cause::closed(),
            (err, _) => Cause::from(err),
        })
    }
}

async fn version(guest: GuestClient, context: Context) -> ttrpc::Result<VersionResponse> {
    guest.version(context, &VersionRequest::new()).await
}

fn context(deadline: Option<Duration>) -> Context {
    // Zero means no deadline to ttrpc, and too long a one would become negative.
    let nanoseconds = deadline.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(0));
    context::with_timeout(nanoseconds)
}

/// Connects to the guest and has it say that it serves. Tries until it works, fails for good, or time is up.
pub(crate) async fn connect(transport: &Transport, options: ConnectOptions) -> Result<Connection> {
    let fail = |code, message: String| Error::new(code, "connect to", transport, message);
    let end = Instant::now() + options.deadline;
    let mut pause = FIRST_PAUSE;
    let mut last = "no try was made".to_owned();
    while Instant::now() < end {
        match timeout_at(end, attempt(transport, options.attempt)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(Attempt::Again(cause))) => last = cause,
            Ok(Err(Attempt::Never(code, cause))) => return Err(fail(code, cause)),
            Err(_) => break,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let seconds = options.deadline.as_secs_f64();
    Err(fail(Code::Unavailable, format!("not within {seconds} s, the last try: {last}")))
}

/// Why a try to connect came to nothing.
enum Attempt {
    /// The guest may not be there yet, or the connection is stuck.
    Again(String),
    /// Another try would end the same way.
    Never(Code, String),
}

async fn attempt(transport: &Transport, limit: Duration) -> Result<Connection, Attempt> {
    let started = Instant::now();
    let stream = match timeout(limit, transport.open()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(judge(&err)),
        Err(_) => return Err(Attempt::Again("it is stuck".to_owned())),
    };
    let connection = Connection { transport: Some(transport.clone()), ..Connection::new(stream) };
    let rest = limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
    match connection.check(Some(rest)).await {
        Ok(()) => Ok(connection),
        Err(err) if matches!(err.code(), Code::Unavailable | Code::DeadlineExceeded) => {
            Err(Attempt::Again(err.message().to_owned()))
        }
        Err(err) => Err(Attempt::Never(err.code(), err.message().to_owned())),
    }
}

fn judge(err: &io::Error) -> Attempt {
    match err.kind() {
        io::ErrorKind::PermissionDenied => Attempt::Never(Code::PermissionDenied, err.to_string()),
        io::ErrorKind::InvalidInput => Attempt::Never(Code::InvalidArgument, err.to_string()),
        _ if err.raw_os_error() == Some(EAFNOSUPPORT) => {
            Attempt::Never(Code::Unimplemented, err.to_string())
        }
        _ => Attempt::Again(err.to_string()),
    }
}
