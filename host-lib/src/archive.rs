//! Files in and out of a container, as a tar stream that an exec of the guest's own writes or reads.
//!
//! ```text
//! export: process.stdout() is the archive            import: process.stdin() takes it, and its end
//!         process.wait() says whether it is whole            process.wait() says whether it was unpacked
//! ```
//! Why it failed is on `process.stderr()`. What comes from a guest may say anything: unpack it with care. Who has not read
//! both outputs to their end says `process.delete()` at last, or the guest remembers it as long as the container.

use hyperstart_protocol::guest::ArchiveRequest;

use crate::container::Container;
use crate::error::{Cause, Result};
use crate::id::ExecId;
use crate::process::Process;

impl Container {
    /// Begins to pack what is at `path`, an absolute path in the container; with `follow` what a symbolic link there leads
    /// to. The archive's top has the path's last name, or is `.` for the root and a path that ends in `/.`. Takes a
    /// hyperstart guest.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such container or path.
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition): the container has stopped.
    /// [`Code::AlreadyExists`](crate::Code::AlreadyExists): the id is taken.
    pub async fn export(&self, id: ExecId, path: &str, follow: bool) -> Result<Process> {
        let request = ArchiveRequest { follow, ..self.archive_request(&id, path) };
        let process = self.exec_process(id);
        let call = self
            .connection()
            .guest(|guest, context| async move { guest.export_files(context, &request).await });
        call.await.map_err(Cause::of("export from container", &process))?;
        Ok(process)
    }

    /// Begins to unpack into the directory at `path`, an absolute path in the container. With `reset_owner` every file is
    /// the container's root's. Whatever the archive says, nothing is made outside of that directory. Takes a hyperstart
    /// guest.
    ///
    /// # Errors
    /// As [`Container::export`]; [`Code::InvalidArgument`](crate::Code::InvalidArgument): no directory.
    pub async fn import(&self, id: ExecId, path: &str, reset_owner: bool) -> Result<Process> {
        let request = ArchiveRequest { reset_owner, ..self.archive_request(&id, path) };
        let process = self.exec_process(id);
        let call = self
            .connection()
            .guest(|guest, context| async move { guest.import_files(context, &request).await });
        call.await.map_err(Cause::of("import into container", &process))?;
        Ok(process)
    }

    fn archive_request(&self, id: &ExecId, path: &str) -> ArchiveRequest {
        ArchiveRequest {
            container_id: self.id().as_str().to_owned(),
            exec_id: id.as_str().to_owned(),
            path: path.to_owned(),
            ..Default::default()
        }
    }
}
