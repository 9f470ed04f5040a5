//! A file system of a few MiB, to be filled to its last byte, or to fail as a bad disk does.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools;

/// The name of the file that a disk is made of.
const IMAGE: &str = "image";

/// Mounted until this is dropped.
pub struct SmallDisk {
    dir: TempDir,
    /// The folder with what it is made of; None where that is memory.
    image: Option<TempDir>,
}

impl SmallDisk {
    /// In memory. None on a machine that does not let us mount one.
    pub fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "lamina-test"],
            dir.path(),
        );
        if !mounted {
            tools::is_missing("the right to mount", "a disk that is full");
            return None;
        }
        Some(Self { dir, image: None })
    }

    /// In a file, with ext4, which becomes read-only at an error. None on a machine that does not
    /// let us mount one.
    pub fn mount_ext4(mib: u64) -> Option<Self> {
        let image = tempfile::tempdir().unwrap();
        let file = image.path().join(IMAGE);
        File::create(&file).unwrap().set_len(mib << 20).unwrap();
        // Without a journal, whose end would be one more thing that fails.
        let made = run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-O", "^has_journal"],
            &file,
        );
        let dir = tempfile::tempdir().unwrap();
        if !(made && mount_image(&file, dir.path())) {
            tools::is_missing(
                "the right to mount ext4 from a file",
                "a disk that becomes read-only",
            );
            return None;
        }
        Some(Self {
            dir,
            image: Some(image),
        })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An error in ext4, as of a bad disk: from now on nothing can be written, whoever has files
    /// open.
    pub fn fail(&self) {
        let found = Command::new("findmnt")
            .args(["-n", "-o", "SOURCE"])
            .arg(self.path())
            .output()
            .unwrap();
        let device = String::from_utf8(found.stdout).unwrap();
        let device = device.trim().trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(trigger, "a bad disk\n").unwrap();
    }

    /// Mounts it anew, with what was written before it failed. Nobody may have files open.
    pub fn mount_again(&self) {
        assert!(run("umount", &[], self.path()));
        let image = self.image.as_ref().expect("it is in a file");
        assert!(mount_image(&image.path().join(IMAGE), self.path()));
    }

    /// Lets nobody change the files of a folder of ext4, nor their number, whoever has them open.
    pub fn seal(&self, folder: &Path) {
        assert!(run("chattr", &["-R", "+i"], folder));
    }

    /// Undoes that.
    pub fn unseal(&self, folder: &Path) {
        assert!(run("chattr", &["-R", "-i"], folder));
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut options = OpenOptions::new();
        let mut filler = options
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            while takes(&mut filler, size) {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// From now on nothing can be written.
    pub fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro"], self.path()));
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of the test may have a file open there.
        run("umount", &["-l"], self.path());
    }
}

fn mount_image(file: &Path, on: &Path) -> bool {
    let options = ["-t", "ext4", "-o", "loop,errors=remount-ro"];
    let file = file.to_str().unwrap();
    run("mount", &[&options[..], &[file]].concat(), on)
}

fn takes(file: &mut File, size: usize) -> bool {
    match file.write_all(&vec![b'x'; size]) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::StorageFull => false,
        Err(error) => panic!("the disk is not full, but: {error}"),
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let status = Command::new(program).args(arguments).arg(path).status();
    status.is_ok_and(|status| status.success())
}
