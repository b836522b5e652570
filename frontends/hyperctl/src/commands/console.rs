//! `hyperctl console`: what the guest's kernel and init said on the serial console; or the shell of a debug image.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::time::timeout;

use crate::commands::POLL;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::output_log::Tail;
use crate::pod::store::{Pod, Store};

/// A guest answers at once, or nobody listens there.
const CONNECT: Duration = Duration::from_secs(10);
/// Some vsock devices lose what is written in one piece of 32 KiB or more.
const PIECE: usize = 16 << 10;

/// Print the guest's console: kernel messages and init's boot steps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more comes, until the pod ends
    #[arg(short, long)]
    follow: bool,
    /// Talk to a root shell of the guest instead: of a debug image, booted with --append agent.debug_console
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "1026", conflicts_with = "follow")]
    shell: Option<u32>,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find(&args.pod)?;
    if let Some(port) = args.shell {
        return shell(&pod, port)
            .await
            .context(|| format!("shell in the guest of pod {:?}", pod.state.name));
    }
    let operation = || format!("read console of pod {:?}", pod.state.name);
    let log = pod.state.console.as_ref();
    let log = log.ok_or_else(|| Error::new("it has not said anything yet")).context(operation)?;
    let mut console = Tail::open(log).context(operation)?;
    loop {
        let may_grow = args.follow && pod.is_hosted()?;
        loop {
            let bytes = console.next().context(operation)?;
            if bytes.is_empty() {
                break;
            }
            output::print(bytes)?;
        }
        if !may_grow {
            return Ok(0);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Until the shell ends. Input that ends has it end too: it cannot be told otherwise, a half-close is lost on some devices.
async fn shell(pod: &Pod, port: u32) -> Result<u8> {
    let address = pod.state.address.as_ref().ok_or_else(|| Error::new("it does not run"))?;
    let hint = "it takes an image with a shell (`DEBUG_IMAGE=1 make image`), --append agent.debug_console and a vsock";
    let connected = timeout(CONNECT, client::transport(address).connect_port(port)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(Error::new(err.to_string()).hint(hint)),
        Err(_elapsed) => return Err(Error::new("no answer").hint(hint)),
    };
    let (mut from, mut to) = split(stream);
    let input = async move {
        let (mut stdin, mut buffer) = (tokio::io::stdin(), vec![0; PIECE]);
        loop {
            let count = stdin.read(&mut buffer).await.unwrap_or(0); // what cannot be read has ended
            let piece =
                buffer.get(..count).filter(|piece| !piece.is_empty()).unwrap_or(b"\nexit\n");
            if to.write_all(piece).await.is_err() || count == 0 {
                return std::future::pending::<()>().await; // the output says when it is over
            }
        }
    };
    let output = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(0), // the shell is gone, or the guest is
                Ok(count) => output::print(buffer.get(..count).unwrap_or_default())?,
            }
        }
    };
    tokio::select! {
        () = input => Ok(0),
        code = output => code,
    }
}
