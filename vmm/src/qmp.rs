//! QMP, QEMU's control channel: a small client.
//!
//! One JSON object a line. QEMU greets, we ask for the command mode, then each command carries an id and is answered by
//! `return` or `error` with that id; events come in between (QEMU's interop/qmp-spec). A task owns the connection;
//! commands are sent to it, so that any number of callers may ask at the same time. Lines are bounded, waits have a
//! deadline, and a connection that ends fails what waits on it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::line;

/// The longest line that is taken, in bytes: answers of the commands here are under 1 KiB.
const MAX_LINE: usize = 1 << 20;
/// How long a command may take. QEMU answers at once, but it may not be given a CPU for long.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);
/// Ids of deleted devices that are kept for those who wait for them.
const DELETED_MAX: usize = 64;
/// Commands that wait to be sent.
const QUEUE: usize = 16;

/// What QEMU has told by events.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The guest stands still (STOP).
    stopped: bool,
    /// Why QEMU ends (SHUTDOWN).
    shutdown: Option<String>,
    /// Devices that the guest has let go (DEVICE_DELETED): the last ones, by their ids.
    deleted: VecDeque<String>,
}

/// A connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    requests: mpsc::Sender<Request>,
    told: watch::Receiver<Told>,
    /// It stood still before there were events for us.
    known_stopped: watch::Sender<bool>,
}

#[derive(Debug)]
struct Request {
    command: &'static str,
    arguments: Value,
    reply: oneshot::Sender<std::result::Result<Value, String>>,
}

impl Qmp {
    /// Takes the greeting and enters command mode.
    ///
    /// # Errors
    /// [`Error::Qmp`] if the peer does not speak QMP, or not within 20 s.
    pub async fn open<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (requests, queue) = mpsc::channel(QUEUE);
        let (report, told) = watch::channel(Told::default());
        let mut connection = Connection {
            reader: BufReader::new(reader),
            line: Vec::new(),
            writer,
            pending: HashMap::new(),
            next_id: 0,
            report,
        };
        let greeting = timeout(COMMAND_DEADLINE, connection.message()).await;
        let greeting = greeting
            .map_err(|_| failed("greeting", "none came"))?
            .map_err(|err| failed("greeting", err))?;
        if greeting.get("QMP").is_none() {
            return Err(failed("greeting", "the peer does not speak QMP"));
        }
        tokio::spawn(connection.serve(queue));
        let qmp = Self { requests, told, known_stopped: watch::Sender::new(false) };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs one command and gives its `return` value.
    ///
    /// # Errors
    /// [`Error::Qmp`] if QEMU refuses it (in its words), the connection has ended, or 20 s have passed.
    pub async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let gone = || "the connection has ended".to_owned();
            self.requests.send(Request { command, arguments, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        match timeout(COMMAND_DEADLINE, asked).await {
            Ok(result) => result.map_err(|err| failed(command, err)),
            Err(_) => {
                Err(failed(command, format!("no answer within {} s", COMMAND_DEADLINE.as_secs())))
            }
        }
    }

    /// QEMU's run state, such as `running` or `guest-panicked`.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn query_status(&self) -> Result<String> {
        let answer = self.execute("query-status", json!({})).await?;
        match answer.get("status").and_then(Value::as_str) {
            Some(status) => Ok(status.to_owned()),
            None => Err(failed("query-status", "the answer has no status")),
        }
    }

    /// Makes QEMU end at once.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn quit(&self) -> Result<()> {
        self.execute("quit", json!({})).await.map(drop)
    }

    /// Presses the power button: a guest with ACPI may act on it.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn system_powerdown(&self) -> Result<()> {
        self.execute("system_powerdown", json!({})).await.map(drop)
    }

    /// Why QEMU ends, once it has said so: such as `guest-reset` or `host-qmp-quit`.
    pub fn shutdown_reason(&self) -> Option<String> {
        self.told.borrow().shutdown.clone()
    }

    /// Waits until the device of this id is gone, for as long as the guest takes. Ids are not to be used twice.
    ///
    /// # Errors
    /// [`Error::Qmp`] if the connection has ended.
    pub async fn deleted(&self, id: &str) -> Result<()> {
        let is_deleted = |told: &Told| told.deleted.iter().any(|deleted| deleted == id);
        match self.told.clone().wait_for(is_deleted).await {
            Ok(_) => Ok(()),
            Err(_) => Err(failed("device_del", "the connection has ended")),
        }
    }

    /// Learns whether the guest stands still: another owner may have had the event.
    pub(crate) async fn learn_status(&self) -> Result<()> {
        let answer = self.execute("query-status", json!({})).await?;
        if answer.get("running").and_then(Value::as_bool) == Some(false) {
            self.known_stopped.send_replace(true);
        }
        Ok(())
    }

    /// Waits until the guest stands still: QEMU has stopped it, and ends only when it is told to.
    pub async fn stopped(&self) {
        if *self.known_stopped.borrow() {
            return;
        }
        if self.told.clone().wait_for(|told| told.stopped).await.is_err() {
            // The connection has ended without it: QEMU is gone, which others see.
            std::future::pending::<()>().await;
        }
    }
}

fn failed(command: &str, detail: impl Into<String>) -> Error {
    Error::Qmp { command: command.to_owned(), detail: detail.into() }
}

struct Connection<R, W> {
    reader: R,
    /// The line that is being read: kept here, so that a read can be given up for a command and taken up again.
    line: Vec<u8>,
    writer: W,
    pending: HashMap<u64, oneshot::Sender<std::result::Result<Value, String>>>,
    next_id: u64,
    report: watch::Sender<Told>,
}

impl<R, W> Connection<BufReader<R>, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// Until either end is gone; dropping `pending` tells those who wait.
    async fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let done = tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.send(request).await,
                    None => return,
                },
                message = self.message() => message.map(|message| self.dispatch(&message)),
            };
            if let Err(err) = done {
                log::debug!("qmp: {err}"); // the usual end: QEMU has ended
                return;
            }
        }
    }

    async fn message(&mut self) -> std::result::Result<Value, String> {
        let line = line::read(&mut self.reader, &mut self.line, MAX_LINE)
            .await
            .map_err(|err| err.to_string())?;
        serde_json::from_slice(&line).map_err(|err| format!("not JSON: {err}"))
    }

    async fn send(&mut self, request: Request) -> std::result::Result<(), String> {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, request.reply);
        let message = json!({"execute": request.command, "arguments": request.arguments, "id": id});
        let written = self.writer.write_all(format!("{message}\n").as_bytes()).await;
        written.map_err(|err| format!("write: {err}"))
    }

    fn dispatch(&mut self, message: &Value) {
        if let Some(event) = message.get("event").and_then(Value::as_str) {
            return self.event(event, message.get("data"));
        }
        let reply =
            message.get("id").and_then(Value::as_u64).and_then(|id| self.pending.remove(&id));
        let Some(reply) = reply else {
            log::debug!("qmp: an answer that nobody waits for");
            return;
        };
        let answer = match (message.get("return"), message.get("error")) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(error)) => {
                Err(error.get("desc").and_then(Value::as_str).unwrap_or("refused").to_owned())
            }
            (None, None) => Err("neither a return nor an error".to_owned()),
        };
        if reply.send(answer).is_err() {
            log::debug!("qmp: an answer came after its deadline");
        }
    }

    fn event(&self, name: &str, data: Option<&Value>) {
        match name {
            "SHUTDOWN" => {
                let reason = data.and_then(|data| data.get("reason")).and_then(Value::as_str);
                let reason = reason.unwrap_or("unknown").to_owned();
                self.report.send_modify(|told| told.shutdown = Some(reason));
            }
            "STOP" => self.report.send_modify(|told| told.stopped = true),
            "RESUME" => self.report.send_modify(|told| told.stopped = false),
            "DEVICE_DELETED" => {
                // Without a device it is about a part of one, which has no id.
                let device = data.and_then(|data| data.get("device")).and_then(Value::as_str);
                if let Some(device) = device {
                    self.report.send_modify(|told| {
                        told.deleted.truncate(DELETED_MAX - 1);
                        told.deleted.push_front(device.to_owned());
                    });
                }
            }
            _ => log::debug!("qmp: event {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, DuplexStream};

    const STOP: &str = "{\"event\": \"STOP\"}\n";
    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

    /// Answers each command by `answer(name)`, to which the id is added.
    async fn fake_qemu(stream: DuplexStream, answer: impl Fn(&str) -> Value) {
        let (reader, mut writer) = tokio::io::split(stream);
        writer.write_all(GREETING.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let command: Value = serde_json::from_str(&line).unwrap();
            let mut reply = answer(command["execute"].as_str().unwrap());
            reply["id"] = command["id"].clone();
            let event = "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-qmp-quit\"}}\n";
            writer.write_all(format!("{STOP}{event}{reply}\r\n").as_bytes()).await.unwrap();
        }
    }

    async fn open(answer: impl Fn(&str) -> Value + Send + 'static) -> Result<Qmp> {
        let (ours, theirs) = tokio::io::duplex(64);
        tokio::spawn(fake_qemu(theirs, answer));
        Qmp::open(ours).await
    }

    #[tokio::test]
    async fn a_command_is_answered_and_events_come_in_between() {
        let qmp = open(|name| match name {
            "query-status" => json!({"return": {"status": "running", "running": true}}),
            _ => json!({"return": {}}),
        })
        .await
        .unwrap();
        assert_eq!(qmp.query_status().await.unwrap(), "running");
        qmp.quit().await.unwrap();
        timeout(COMMAND_DEADLINE, qmp.stopped()).await.unwrap();
        assert_eq!(qmp.shutdown_reason().as_deref(), Some("host-qmp-quit"));
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_told_to_who_asks_later() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let mut theirs = BufReader::new(theirs);
        let talk = async {
            theirs.write_all(GREETING.as_bytes()).await.unwrap();
            theirs.read_line(&mut String::new()).await.unwrap(); // qmp_capabilities
            theirs.write_all(b"{\"return\": {}, \"id\": 0}\n").await.unwrap();
            let deleted = "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"plug1\"}}\n";
            theirs.write_all(deleted.as_bytes()).await.unwrap();
        };
        let (qmp, ()) = tokio::join!(Qmp::open(ours), talk);
        let qmp = qmp.unwrap();
        timeout(COMMAND_DEADLINE, qmp.deleted("plug1")).await.unwrap().unwrap();
        drop(theirs);
        let other = timeout(COMMAND_DEADLINE, qmp.deleted("plug2")).await.unwrap();
        assert!(other.unwrap_err().to_string().contains("connection has ended"));
    }

    #[tokio::test]
    async fn a_refusal_is_quoted() {
        let qmp = open(|name| match name {
            "qmp_capabilities" => json!({"return": {}}),
            _ => json!({"error": {"class": "GenericError", "desc": "not now"}}),
        })
        .await
        .unwrap();
        assert_eq!(
            qmp.system_powerdown().await.unwrap_err().to_string(),
            "qmp system_powerdown: not now"
        );
    }

    #[tokio::test]
    async fn a_peer_that_ends_fails_what_waits() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(GREETING.as_bytes()).await.unwrap();
        drop(theirs);
        let err = Qmp::open(ours).await.unwrap_err().to_string();
        assert!(err.contains("connection has ended"), "{err}");
    }

    #[tokio::test]
    async fn another_protocol_and_an_endless_line_are_refused() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(b"{\"hello\": 1}\n").await.unwrap();
        assert!(Qmp::open(ours).await.unwrap_err().to_string().contains("does not speak QMP"));

        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move { while theirs.write_all(&[b'x'; 4096]).await.is_ok() {} });
        assert!(Qmp::open(ours).await.unwrap_err().to_string().contains("longer than"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(64);
        assert!(Qmp::open(ours).await.unwrap_err().to_string().contains("none came"));
    }
}
