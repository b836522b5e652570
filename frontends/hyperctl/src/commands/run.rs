//! `hyperctl run`: a container in a new VM, or one more in a pod that runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::detach_keys::Keys;
use crate::error::{Context as _, Error, Result};
use crate::flags::ContainerFlags;
use crate::guest::GuestDir;
use crate::image::{self, Image};
use crate::layers;
use crate::machine::MachineFlags;
use crate::output;
use crate::pod::front::Front;
use crate::pod::name;
use crate::pod::store::Store;
use crate::pod::{detach, further, host};
use crate::session::Offsets;
use crate::signals::Signals;
use crate::spec::{Container, ProcessFlags};
use crate::terminal::{self, Size};

/// The reader that whoever runs a container in front is.
const FRONT: &str = "front";

const NOTES: &str = "\
IMAGE is a name or digest in the store, a name among the guest's files, or the path of an image file; COMMAND
replaces the image's own. Each layer of an image in the store is a disk of the VM; where there is no room for all,
they are made one, once. The image's volumes are memory that starts with what it has there.

An exited pod stays listed by `ps -a`, with its output (`logs`), console and boot receipt, until `rm`.
With --rm nothing stays. Every pod is hosted by a hyperctl of its own; a hyperctl that is killed, that one
or the one in front, costs neither the pod nor any of its output: `ps` shows it, `logs` has it.

With --pod the container joins a pod that runs: its own root, processes and limits, the pod's network,
host name and IPC. It is called POD/NAME from then on, and is stopped when the pod's first container ends.
Its image must be one that the pod has, or the pod was started with --slots (q35, pc) or --attach-image.

Hooks of a bundle: createContainer and startContainer run in the guest; prestart, createRuntime, poststart and
poststop are programs of this host, and run as you. Look at a foreign bundle's config.json before you run it.

Ctrl-C goes to the container: as a key with -it, as SIGINT otherwise; the third time it is killed.";

/// Run a container in a new VM
#[derive(Clone, Debug, clap::Args, Deserialize, Serialize)]
#[command(after_help = NOTES)]
#[command(override_usage = "\
hyperctl run [OPTIONS] IMAGE [COMMAND...]
       hyperctl run [OPTIONS] --bundle DIR [COMMAND...]
       hyperctl run [OPTIONS] --pod POD IMAGE [COMMAND...]")]
pub struct Args {
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Run in the background and print the pod's id
    #[arg(short, long)]
    pub detach: bool,
    /// Leave no record when it has ended
    #[arg(long)]
    pub rm: bool,
    /// A name to call it by [default: invented]
    #[arg(long)]
    pub name: Option<String>,
    /// Run a further container in this pod instead of a new VM
    #[arg(long, value_name = "POD", conflicts_with_all = ["MachineFlags", "attach_image", "timeout"])]
    pub pod: Option<String>,
    /// Containers of the pod see each other's processes
    #[arg(long, conflicts_with = "pod")]
    pub share_pid: bool,
    /// Attach one more image, for a further container (any board)
    #[arg(long, value_name = "IMAGE")]
    pub attach_image: Vec<String>,
    /// Run an OCI bundle: config.json and a rootfs, which is shared with the guest and written to
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// How long the guest may take to get ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    #[command(flatten)]
    pub process: ProcessFlags,
    #[command(flatten)]
    pub container: ContainerFlags,
    #[command(flatten)]
    pub machine: MachineFlags,
    #[arg(trailing_var_arg = true, required_unless_present = "bundle", hide = true)]
    pub image_and_command: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let work = args.work()?; // what is wrong with the words is said here, not by a host
    if !args.detach {
        terminal::check_input(work.container().tty(), args.interactive)?;
    }
    let (store, mut signals) = (Store::open()?, Signals::listen()?);
    let (detached, interactive) = (args.detach, args.interactive);
    let pod = match work {
        Work::Pod(_) => {
            let (reader, size) = in_front(detached);
            let request = detach::Request { args, reader, size };
            detach::spawn(&request, &store, &mut signals).await?
        }
        Work::Further(order, image) => further::ask(*order, *image, &store, &mut signals).await?,
    };
    if detached {
        return output::print(format!("{}\n", pod.state.id)).map(|()| 0);
    }
    let front = Front {
        reader: FRONT,
        interactive,
        from: Offsets::default(),
        to_the_end: true,
        detach_keys: Keys::default(),
    };
    front.attach(&pod, &mut signals).await
}

/// The reader that will be ours, and the size of our terminal.
fn in_front(detached: bool) -> (Option<String>, Option<Size>) {
    match detached {
        true => (None, None),
        false => (Some(FRONT.into()), terminal::size()),
    }
}

/// What `run`'s words ask for.
pub enum Work {
    Pod(Box<host::Order>),
    Further(Box<further::Order>, Box<Image>),
}

impl Work {
    fn container(&self) -> &Container {
        match self {
            Work::Pod(order) => &order.container,
            Work::Further(order, _) => &order.container,
        }
    }
}

impl Args {
    /// The pod, or the further container, that these words ask for.
    pub fn work(&self) -> Result<Work> {
        let flags = &self.container;
        flags.user_namespace.check(self.bundle.is_some(), flags.privileges.privileged)?;
        if let Some(name) = &self.name {
            name::check(name)?;
        }
        match &self.pod {
            None => Ok(Work::Pod(Box::new(self.order(None, None)?))),
            Some(pod) => self.further(pod),
        }
    }

    fn further(&self, pod: &str) -> Result<Work> {
        if self.bundle.is_some() {
            return Err(Error::new(
                "--bundle: its directory cannot be shared with a pod that runs",
            )
            .hint("make an image of it: `image-builder container`"));
        }
        let name = self.image_and_command.first().map_or("", String::as_str);
        let image = image::find(GuestDir::locate, name)?;
        let order = further::Order {
            pod: pod.to_string(),
            name: self.name.clone(),
            container: self.described_container(Some(&image))?.with(&self.container),
            images: image.digest().into_iter().collect(),
            interactive: self.interactive,
            reader: in_front(self.detach).0,
            size: in_front(self.detach).1,
            remove: self.rm,
        };
        Ok(Work::Further(Box::new(order), Box::new(image)))
    }

    /// The pod, for its host.
    pub fn order(&self, reader: Option<String>, size: Option<Size>) -> Result<host::Order> {
        let machine = self.machine.machine(&self.container.limits.resources)?;
        let mut images = self.images()?;
        let room = machine.room().saturating_sub(self.container.mounts.all().count());
        layers::fit(&mut images, |_| false, room)?;
        let attached = images.iter().skip(usize::from(self.bundle.is_none()));
        let mut container = self.described_container(images.first())?.with(&self.container);
        if self.container.mounts.all().next().is_some() {
            container.find_mounts(self.machine.share_kind()?)?;
        }
        Ok(host::Order {
            name: self.name.clone(),
            vm: self.machine.describe(&machine),
            machine,
            container,
            layers: layers::each_once(attached.flat_map(|image| &image.layers)),
            images: images.iter().filter_map(Image::digest).collect(),
            share_pid: self.share_pid,
            interactive: self.interactive,
            reader,
            size,
            remove: self.rm,
            deadline: Duration::from_secs(self.timeout),
        })
    }

    /// The container's own, unless it is a bundle, and those to attach besides.
    fn images(&self) -> Result<Vec<Image>> {
        let own = self.image_and_command.first().filter(|_| self.bundle.is_none());
        let names = own.into_iter().chain(&self.attach_image);
        names.map(|name| image::find(GuestDir::locate, name)).collect()
    }

    /// `image` is its own, of a container that has one.
    fn described_container(&self, image: Option<&Image>) -> Result<Container> {
        if let Some(bundle) = &self.bundle {
            let bundle = fs::canonicalize(bundle).context(|| format!("find bundle {bundle:?}"))?;
            return Container::from_bundle(
                &bundle,
                &self.image_and_command,
                &self.process,
                self.tty,
            );
        }
        let words = self.image_and_command.get(1..).unwrap_or_default();
        let image = image.ok_or_else(|| Error::new("run: no image is named"))?;
        Container::from_image(image, words, &self.process, self.tty)
    }
}
