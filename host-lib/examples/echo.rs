//! Runs `echo helloworld` in a container of a guest that listens on a unix socket, and shows what it says.
//!
//! The guest is fresh and has an image with `echo` in it as its first disk. To have one:
//! ```text
//! OWNER_DISKS=target/guest/images/busybox.erofs cargo run -p hyperstart-vmm --example owner -- \
//!     /tmp/vm target/guest/vmlinux target/guest/initrd.img serial
//! cargo run -p hyperstart --example echo -- /tmp/vm/vm/agent.sock
//! ```

use std::time::Duration;

use hyperstart::{ContainerId, ContainerOptions, Sandbox, SandboxConfig, Storage, Transport, spec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: echo SOCKET")?.into();
    let sandbox = Sandbox::connect(&Transport::Unix { path }).await?;
    sandbox.create(&SandboxConfig { hostname: "demo".to_owned(), ..Default::default() }).await?;

    let id = ContainerId::new("demo")?;
    let image = Storage::image("mmioblk", "/dev/vda", &ContainerId::new("busybox")?);
    let options = ContainerOptions {
        storages: vec![image.clone(), Storage::overlay(&id, &[image])],
        ..Default::default()
    };
    let args = ["echo", "helloworld"].map(str::to_owned).into();
    let process = spec::default_process(args, vec![], "/", spec::user("0"), false);
    let container =
        sandbox.create_container(&id, &spec::default_spec(&id, process), options).await?;

    container.start().await?;
    tokio::io::copy(&mut container.process().stdout(), &mut tokio::io::stdout()).await?;
    let status = container.wait().await?;
    container.remove(Duration::from_secs(10)).await?;
    sandbox.destroy().await?;
    if status.success() { Ok(()) } else { Err(format!("exit code {}", status.code()).into()) }
}
