//! Where decompressed bytes wait until the image is written: a file without a name, so nothing of it is left whatever
//! ends the program. It lies on the file system of the output, which has room for them or has no room for the image.

use crate::error::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

pub struct Spool {
    file: Rc<File>,
    end: u64,
}

impl Spool {
    /// An empty spool on the file system of this directory.
    pub fn new(directory: &Path) -> Result<Spool> {
        let file = tempfile::tempfile_in(directory)
            .context(|| format!("create a temporary file in {directory:?}"))?;
        Ok(Spool { file: Rc::new(file), end: 0 })
    }

    pub fn file(&self) -> &Rc<File> {
        &self.file
    }

    /// Where the next byte goes.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends bytes; a piece of zeros alone becomes a hole.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end + bytes.len() as u64;
        match bytes.iter().all(|byte| *byte == 0) {
            true => self.file.set_len(end),
            false => self.file.write_all_at(bytes, self.end),
        }
        .context(|| "write to the temporary file".into())?;
        self.end = end;
        Ok(())
    }
}
