//! The guest's one door: ttrpc over vsock and virtio-serial, for the host alone.
//!
//! ```text
//! vsock, serial --connection--> ttrpc --bytes--> rpc (one table a service) --call--> the domain's task --> Sandbox
//! ```
//! ttrpc wants handlers that may move between threads; the domain never does. So a handler is a message to the one
//! task that owns the sandbox, and the answer comes back through a oneshot channel.

mod debug_console;
mod guest;
mod health;
mod kata;
mod log_stream;
mod oci;
mod rpc;
mod serial;
mod stream;
mod vsock;

use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_core::Stream;
use hyperstart_protocol::STREAM_PORT;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::{Listener, Socket};

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::sandbox::Sandbox;
use rpc::Domain;

/// Long enough for the answer to the last request to leave the machine before the machine goes.
const LAST_WORDS: Duration = Duration::from_millis(10);

/// Connections that were accepted and wait for their turn.
const BACKLOG: usize = 16;

/// Serves the host until it destroys the sandbox.
pub async fn serve(sandbox: Rc<Sandbox>) -> Result<()> {
    let (connections, accepted) = mpsc::channel(BACKLOG);
    let mut server = ttrpc_server(&Domain::start(Rc::clone(&sandbox)), accepted);
    server
        .start()
        .await
        .map_err(|err| Error::new(Code::Internal, err.to_string()))
        .context(|| "start ttrpc".to_owned())?;
    let listener = vsock::listen(sandbox.config.agent_port)?;
    sandbox.receipt.borrow_mut().mark("listening");
    let vsock = spawn_local(vsock::accept(listener, connections.clone()));
    let serial = spawn_local(serial::accept(Rc::clone(&sandbox), connections));
    let streams = stream::serve(vsock::listen(STREAM_PORT)?, Rc::clone(&sandbox));
    let streams = spawn_local(streams);
    if let Some(port) = sandbox.config.log_port {
        spawn_local(log_stream::serve(vsock::listen(port)?));
    }
    debug_console::open(&sandbox)?;
    sandbox.receipt.borrow_mut().mark("ready");
    if let Some(port) = sandbox.config.ready_port {
        spawn_local(announce(port));
    }
    let result = sandbox.run().await;
    vsock.abort();
    serial.abort();
    streams.abort();
    sleep(LAST_WORDS).await;
    result
}

fn ttrpc_server(domain: &Domain, accepted: mpsc::Receiver<Socket>) -> Server {
    let services = [kata::service(domain), health::service(domain), guest::service(domain)];
    Server::new()
        .add_listener(Listener::new(Accepted(accepted)))
        .register_service(HashMap::from(services))
}

/// A host that is not there to hear it finds the API by connecting.
async fn announce(port: u32) {
    if let Err(err) = vsock::announce(port).await {
        log::error!("{err}");
    }
}

/// Connections of every transport, as ttrpc takes them.
struct Accepted(mpsc::Receiver<Socket>);

impl Stream for Accepted {
    type Item = std::io::Result<Socket>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|connection| connection.map(Ok))
    }
}
