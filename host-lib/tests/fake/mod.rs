//! A guest made of a few tables, behind the generated server traits: what a correct guest answers, without a VM.
//! And [`hostile`], which answers with whatever bytes a test gives it.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod guest_service;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hyperstart::{ConnectOptions, Sandbox, Transport};
use hyperstart_protocol::{
    Empty, agent, agent_ttrpc, guest, guest_ttrpc, health, health_ttrpc, oci,
};
use protobuf::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::proto::{Response, Status};
use ttrpc::{Code, Error, get_status};

/// What the guest was asked, and what it is to answer.
#[derive(Default)]
pub struct Guest {
    /// Every request: its method and the ids in it.
    pub log: Mutex<Vec<String>>,
    /// The spec of the last container.
    pub spec: Mutex<Option<oci::Spec>>,
    /// The storages of the last container.
    pub storages: Mutex<Vec<agent::Storage>>,
    /// The process of the last exec.
    pub exec: Mutex<Option<oci::Process>>,
    /// What ReadStdout answers, chunk by chunk, then the end.
    pub stdout: Mutex<VecDeque<Vec<u8>>>,
    /// What WriteStdin took.
    pub stdin: Mutex<Vec<u8>>,
    /// The resources of the last update.
    pub resources: Mutex<Option<oci::LinuxResources>>,
    /// What StatsContainer answers.
    pub stats: Mutex<agent::StatsContainerResponse>,
    /// What ListProcesses answers.
    pub processes: Mutex<guest::ListProcessesResponse>,
    /// The exit status, once there is one.
    pub status: watch::Sender<Option<i32>>,
    /// What Events tells; those that are no longer there are lost.
    pub events: watch::Sender<Vec<guest::Event>>,
    /// What ReadLog answers.
    pub journal: Mutex<guest::ReadLogResponse>,
    /// What List answers.
    pub listing: Mutex<guest::ListResponse>,
}

/// How many bytes of a WriteStdin are taken at once: fewer than a chunk has.
const PIPE: usize = 5000;

impl Guest {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Serves on a unix socket until the server is dropped.
    pub async fn listen(self: &Arc<Self>, socket: &Path) -> Server {
        let mut server = Server::new()
            .bind(&format!("unix://{}", socket.display()))
            .unwrap()
            .register_service(agent_ttrpc::create_agent_service(Arc::clone(self) as _))
            .register_service(health_ttrpc::create_health(Arc::clone(self) as _))
            .register_service(guest_ttrpc::create_guest(Arc::clone(self) as _));
        server.start().await.unwrap();
        server
    }

    /// One that is connected to. It serves, and can be connected to again, until the last of these is dropped.
    pub async fn connected(options: ConnectOptions) -> (Arc<Self>, Sandbox, (Server, TempDir)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let guest = Self::new();
        let server = guest.listen(&path).await;
        let sandbox = Sandbox::connect_with(&Transport::Unix { path }, options).await.unwrap();
        (guest, sandbox, (server, dir))
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn note(&self, request: String) -> ttrpc::Result<Empty> {
        self.log.lock().unwrap().push(request);
        Ok(Empty::new())
    }
}

#[async_trait]
impl agent_ttrpc::AgentService for Guest {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: agent::CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("create sandbox {} {:?}", request.hostname, request.dns))
    }

    async fn destroy_sandbox(
        &self,
        _: &TtrpcContext,
        _: agent::DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        self.note("destroy sandbox".to_owned())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        mut request: agent::CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        if request.container_id == "taken" {
            return Err(Error::RpcStatus(get_status(
                Code::ALREADY_EXISTS,
                "container \"taken\" exists",
            )));
        }
        *self.spec.lock().unwrap() = request.OCI.take();
        *self.storages.lock().unwrap() = request.storages;
        self.note(format!("create {} {}", request.container_id, request.exec_id))
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: agent::StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("start {}", request.container_id))
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: agent::RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("remove {} {}", request.container_id, request.timeout))
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        mut request: agent::ExecProcessRequest,
    ) -> ttrpc::Result<Empty> {
        *self.exec.lock().unwrap() = request.process.take();
        self.note(format!("exec {} {}", request.container_id, request.exec_id))
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: agent::SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let agent::SignalProcessRequest { container_id, exec_id, signal, .. } = request;
        self.note(format!("signal {container_id} {exec_id:?} {signal}"))
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: agent::WaitProcessRequest,
    ) -> ttrpc::Result<agent::WaitProcessResponse> {
        self.note(format!("wait {} {}", request.container_id, request.exec_id))?;
        let mut status = self.status.subscribe();
        let status = status.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(agent::WaitProcessResponse { status, ..Default::default() })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: agent::ReadStreamRequest,
    ) -> ttrpc::Result<agent::ReadStreamResponse> {
        self.note(format!("stdout {} {}", request.container_id, request.exec_id))?;
        let data = self.stdout.lock().unwrap().pop_front().unwrap_or_default();
        Ok(agent::ReadStreamResponse { data, ..Default::default() })
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: agent::ReadStreamRequest,
    ) -> ttrpc::Result<agent::ReadStreamResponse> {
        self.note(format!("stderr {} {}", request.container_id, request.exec_id))?;
        Ok(agent::ReadStreamResponse::new())
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: agent::WriteStreamRequest,
    ) -> ttrpc::Result<agent::WriteStreamResponse> {
        assert!(!request.data.is_empty(), "an empty write closes the input");
        let taken = request.data.len().min(PIPE);
        self.stdin.lock().unwrap().extend_from_slice(&request.data[..taken]);
        Ok(agent::WriteStreamResponse { len: taken.try_into().unwrap(), ..Default::default() })
    }

    async fn close_stdin(
        &self,
        _: &TtrpcContext,
        request: agent::CloseStdinRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("close {} {}", request.container_id, request.exec_id))
    }

    async fn tty_win_resize(
        &self,
        _: &TtrpcContext,
        request: agent::TtyWinResizeRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("resize {}x{}", request.column, request.row))
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: agent::PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("pause {}", request.container_id))
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        request: agent::ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("resume {}", request.container_id))
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        mut request: agent::UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        *self.resources.lock().unwrap() = request.resources.take();
        self.note(format!("update {}", request.container_id))
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: agent::StatsContainerRequest,
    ) -> ttrpc::Result<agent::StatsContainerResponse> {
        self.note(format!("stats {}", request.container_id))?;
        Ok(self.stats.lock().unwrap().clone())
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        _: agent::GuestDetailsRequest,
    ) -> ttrpc::Result<agent::GuestDetailsResponse> {
        let mut answer =
            agent::GuestDetailsResponse { mem_block_size_bytes: 1 << 27, ..Default::default() };
        let details = answer.agent_details.mut_or_insert_default();
        details.version = "1.2.3\x1b[31m".to_owned();
        details.init_daemon = true;
        details.storage_handlers = vec!["mmioblk".to_owned()];
        Ok(answer)
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        request: agent::SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("time {}.{:06}", request.Sec, request.Usec))
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        request: agent::ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        self.note(format!("reseed {}", request.data.len()))
    }

    async fn get_oom_event(
        &self,
        _: &TtrpcContext,
        _: agent::GetOOMEventRequest,
    ) -> ttrpc::Result<agent::OOMEvent> {
        Ok(agent::OOMEvent { container_id: "hog".to_owned(), ..Default::default() })
    }
}

#[async_trait]
impl health_ttrpc::Health for Guest {
    async fn check(
        &self,
        _: &TtrpcContext,
        _: health::CheckRequest,
    ) -> ttrpc::Result<health::HealthCheckResponse> {
        Ok(serving())
    }

    async fn version(
        &self,
        _: &TtrpcContext,
        _: health::CheckRequest,
    ) -> ttrpc::Result<health::VersionCheckResponse> {
        Ok(health::VersionCheckResponse {
            agent_version: "1.2.3".to_owned(),
            grpc_version: "0.0.1".to_owned(),
            ..Default::default()
        })
    }
}

pub fn serving() -> health::HealthCheckResponse {
    use health::health_check_response::ServingStatus;
    health::HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() }
}

/// A request as it came over the wire.
pub struct Asked {
    pub stream_id: u32,
    pub method: String,
}

/// The other end of a [`hostile`] sandbox.
pub struct Wire(DuplexStream);

/// A sandbox whose guest is the test itself.
pub fn hostile() -> (Sandbox, Wire) {
    hostile_with(64 << 10)
}

/// As [`hostile`]; the connection holds `bytes` each way before it stalls.
pub fn hostile_with(bytes: usize) -> (Sandbox, Wire) {
    let (near, far) = tokio::io::duplex(bytes);
    (Sandbox::from_stream(near), Wire(far))
}

impl Wire {
    /// The next request, or nothing when the host has closed the connection.
    pub async fn asked(&mut self) -> Option<Asked> {
        let length = self.0.read_u32().await.ok()?;
        let stream_id = self.0.read_u32().await.unwrap();
        let _type_and_flags = self.0.read_u16().await.unwrap();
        let mut payload = vec![0; length.try_into().unwrap()];
        self.0.read_exact(&mut payload).await.unwrap();
        let request = ttrpc::proto::Request::parse_from_bytes(&payload).unwrap();
        Some(Asked { stream_id, method: request.method })
    }

    /// Answers as a correct guest does.
    pub async fn answer(&mut self, asked: &Asked, answer: &impl Message) {
        let payload = response(Code::OK, "", answer.write_to_bytes().unwrap());
        self.frame(asked.stream_id, 2, 0, &payload).await;
    }

    /// One frame, with its true length.
    pub async fn frame(&mut self, stream_id: u32, kind: u8, flags: u8, payload: &[u8]) {
        let mut frame = Vec::from(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(stream_id.to_be_bytes());
        frame.extend([kind, flags]);
        frame.extend(payload);
        self.bytes(&frame).await;
    }

    /// Any bytes. The host may have hung up on the ones before.
    pub async fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }
}

/// The payload of a response frame.
pub fn response(code: Code, message: &str, payload: Vec<u8>) -> Vec<u8> {
    let status = Status { code: code.into(), message: message.to_owned(), ..Default::default() };
    let status = protobuf::MessageField::some(status);
    Response { status, payload, ..Default::default() }.write_to_bytes().unwrap()
}
