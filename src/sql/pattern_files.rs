//! Files of grok patterns: read where a statement names them, so that what a stream keeps of its format says all.
//!
//! A format has no files, and a stream's rows are made again from its log long after the files may have changed or gone. So
//! the definitions that a pattern needs take the place of the directory (`format::grok::inlined`).

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::format::{FORMATS, grok};

/// All files together: Logstash's own are 40 KB.
const MAX_BYTES: u64 = 4 << 20;

/// The options of a format without names of files.
pub fn inlined(format: &str, options: Vec<(String, String)>) -> Result<Vec<(String, String)>> {
    let is_dir = |name: &str| name.eq_ignore_ascii_case(grok::PATTERNS_DIR);
    let Some((_, dir)) = options.iter().find(|(name, _)| is_dir(name)) else { return Ok(options) };
    match crate::registry::find(FORMATS, "format", format) {
        Ok(spec) if spec.name == grok::SPEC.name => grok::inlined(&options, &read(Path::new(dir))?),
        // Said by whoever builds it.
        Ok(_) | Err(_) => Ok(options),
    }
}

/// The texts of the files of a directory (not of those in it), in the order of their names; or of a file.
fn read(path: &Path) -> Result<String> {
    crate::reach::path(&path.display().to_string())?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |err: std::io::Error| Error::io("read", &path, &err)
    };
    let mut files: Vec<PathBuf> = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if file.is_file() && !hidden {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_path_buf());
    }
    let (mut text, mut left) = (String::new(), MAX_BYTES);
    for file in &files {
        let bytes = std::fs::metadata(file).map_err(failed(file))?.len();
        left = left.checked_sub(bytes).ok_or_else(|| {
            Error::new(Kind::ResourceLimit, format!("the files of patterns in \"{}\" are too long", path.display()))
                .with_detail(format!("Together they may have {MAX_BYTES} bytes."))
        })?;
        text += &std::fs::read_to_string(file).map_err(failed(file))?;
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(dir: &Path) -> Vec<(String, String)> {
        vec![("pattern".into(), "%{PORT:port}".into()), ("patterns_dir".into(), dir.display().to_string())]
    }

    #[test]
    fn definitions_take_the_place_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "PORT x\nOTHER y").unwrap();
        std::fs::write(dir.path().join("b"), "PORT \\d+\n").unwrap();
        std::fs::write(dir.path().join(".hidden"), "\u{0}").unwrap();
        let options = inlined("GROK", given(dir.path())).unwrap();
        assert_eq!(options[1..], [("patterns".to_string(), "PORT \\d+".to_string())]);
        assert_eq!(inlined("GROK", given(&dir.path().join("a"))).unwrap()[1].1, "PORT x");
        assert_eq!(inlined("regex", given(dir.path())).unwrap(), given(dir.path()));
        assert!(inlined("grok", given(&dir.path().join("none"))).unwrap_err().message().contains("none"));
    }
}
