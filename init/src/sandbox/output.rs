//! What processes write and read, and how long an exec that has ended is remembered for it.

use std::rc::Rc;

use super::Sandbox;
use crate::container::{ContainerId, ExecId, Process};
use crate::error::{Code, Context, Error, Result};
use crate::stdio::{Chunk, Reader, Start, Which};

/// An output of a process, as a request names it.
pub struct OutputName<'a> {
    pub id: &'a ContainerId,
    pub exec_id: Option<&'a ExecId>,
    pub which: Which,
}

/// How a read is done.
pub struct Read {
    /// None: a look, which holds nothing.
    pub reader: Option<Reader>,
    pub start: Start,
    pub most: usize,
    pub waits: bool,
}

impl Sandbox {
    /// The next bytes, for who keeps no account of them; none: the end.
    pub async fn read_next(&self, name: OutputName<'_>, most: usize) -> Result<Vec<u8>> {
        let process = self.process(name.id, name.exec_id)?;
        let data = process.stdio.output(name.which).read_next(most).await;
        let data = data.context(|| name.operation("read"))?;
        self.forget_if_done(name.id, name.exec_id, &process);
        Ok(data)
    }

    /// Bytes at an offset; the reader, if it has a name, has all before.
    pub async fn read_output(&self, name: OutputName<'_>, read: Read) -> Result<Chunk> {
        let process = self.process(name.id, name.exec_id)?;
        let output = process.stdio.output(name.which);
        let Read { reader, start, most, waits } = read;
        let answer = async {
            if let Some(reader) = &reader {
                output.attach(reader, start)?;
            }
            if waits { output.read(start, most).await } else { output.look(start, most) }
        };
        let chunk = answer.await.context(|| name.operation("read"))?;
        if chunk.end && chunk.data.is_empty() && reader.is_some() {
            output.told_end();
            self.forget_if_done(name.id, name.exec_id, &process);
        }
        Ok(chunk)
    }

    /// Forgets a reader with a name.
    pub fn release_reader(&self, name: &OutputName<'_>, reader: &Reader) -> Result<()> {
        let process = self.process(name.id, name.exec_id)?;
        if process.stdio.output(name.which).release(reader) {
            return Ok(());
        }
        let message = format!("{}: reader not found", name.operation("release reader of"));
        Err(Error::new(Code::NotFound, message))
    }

    /// Forgets an exec that has ended.
    pub fn delete_exec(&self, id: &ContainerId, exec_id: &ExecId) -> Result<()> {
        let container = self.container(id)?;
        if container.process(Some(exec_id))?.status().is_none() {
            let message = format!("delete exec {exec_id:?} in container {id:?}: it is running");
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        container.forget_process(exec_id);
        Ok(())
    }

    /// An exec that was waited for and read to its end has nothing more to give; unless a reader has a name, whose
    /// client may have died before it knew.
    pub fn forget_if_done(
        &self,
        id: &ContainerId,
        exec_id: Option<&ExecId>,
        process: &Rc<Process>,
    ) {
        let Some(exec_id) = exec_id else { return };
        let stdio = &process.stdio;
        let is_done = process.waited.get() && stdio.is_read_to_end() && !stdio.is_kept();
        if !is_done {
            return;
        }
        let Ok(container) = self.container(id) else { return };
        let known = container.process(Some(exec_id));
        if known.is_ok_and(|known| Rc::ptr_eq(&known, process)) {
            container.forget_process(exec_id);
        }
    }
}

impl OutputName<'_> {
    fn operation(&self, verb: &str) -> String {
        let which = match self.which {
            Which::Stdout => "stdout",
            Which::Stderr => "stderr",
        };
        match self.exec_id {
            Some(exec_id) => format!("{verb} {which} of {:?}/{exec_id:?}", self.id),
            None => format!("{verb} {which} of {:?}", self.id),
        }
    }
}
