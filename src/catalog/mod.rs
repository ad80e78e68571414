//! What objects are there? Each CREATE is kept as its text and run again at start-up: first run and restart are the same
//! code. [`system`] holds the relations of schema `logweir`, [`postgres`] what Postgres clients ask for.

pub mod postgres;
pub mod system;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::storage::fs::{Disk, read, write_atomic};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    Stream,
    MaterializedView,
    View,
    ExternalTable,
}

impl ObjectKind {
    /// As PostgreSQL's messages would call it.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::Stream => "table",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::View => "view",
            ObjectKind::ExternalTable => "external table",
        }
    }
}

/// One object: enough to make it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Object {
    /// Never used again for another object; names its folder.
    pub id: u32,
    pub kind: ObjectKind,
    pub name: String,
    /// The CREATE statement.
    pub sql: String,
    /// Names of the relations it reads.
    pub reads: BTreeSet<String>,
}

/// All objects in the order of their creation, kept in `catalog.json` of the data dir.
pub struct Catalog {
    path: Option<PathBuf>,
    content: Content,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Content {
    next_id: u32,
    objects: Vec<Object>,
}

impl Catalog {
    /// Without a data dir nothing is kept.
    pub fn open(dir: Option<&Path>) -> Result<Catalog> {
        let path = dir.map(|d| d.join("catalog.json"));
        let content = match &path {
            Some(path) if path.exists() => {
                let bytes = read(&Disk, path)?;
                serde_json::from_slice(&bytes).map_err(|e| {
                    Error::new(Kind::Corrupted, format!("the catalog {:?} is damaged: {e}", path.display().to_string()))
                        .with_hint("Restore the file from a backup, or move it away and create the objects again.")
                })?
            }
            Some(_) | None => Content { next_id: 1, objects: Vec::new() },
        };
        Ok(Catalog { path, content })
    }

    pub fn objects(&self) -> &[Object] {
        &self.content.objects
    }

    pub fn get(&self, name: &str) -> Option<&Object> {
        self.content.objects.iter().find(|o| o.name == name)
    }

    /// The id that the next object will get.
    pub fn next_id(&self) -> u32 {
        self.content.next_id
    }

    /// Adds an object and makes it durable.
    pub fn add(&mut self, kind: ObjectKind, name: &str, sql: &str, reads: BTreeSet<String>) -> Result<()> {
        let mut content = self.content.clone();
        content.objects.push(Object { id: content.next_id, kind, name: name.into(), sql: sql.into(), reads });
        content.next_id += 1;
        self.store(content)
    }

    /// Puts another statement in the place of an object's.
    pub fn replace(&mut self, name: &str, sql: &str, reads: BTreeSet<String>) -> Result<()> {
        let mut content = self.content.clone();
        if let Some(object) = content.objects.iter_mut().find(|o| o.name == name) {
            (object.sql, object.reads) = (sql.to_string(), reads);
        }
        self.store(content)
    }

    /// Removes objects and makes that durable.
    pub fn remove(&mut self, names: &[String]) -> Result<()> {
        let mut content = self.content.clone();
        content.objects.retain(|o| !names.contains(&o.name));
        self.store(content)
    }

    /// The object and all that read it, directly or through others: dependents last.
    pub fn dependents(&self, name: &str) -> Vec<String> {
        let mut found = vec![name.to_string()];
        let mut at = 0;
        while at < found.len() {
            for object in &self.content.objects {
                if object.reads.contains(&found[at]) && !found.contains(&object.name) {
                    found.push(object.name.clone());
                }
            }
            at += 1;
        }
        found
    }

    fn store(&mut self, content: Content) -> Result<()> {
        if let Some(path) = &self.path {
            let bytes = serde_json::to_vec_pretty(&content).map_err(|e| Error::internal(e.to_string()))?;
            write_atomic(&Disk, path, &bytes)?;
        }
        self.content = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_survive_and_dependents_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(Some(dir.path())).unwrap();
        catalog.add(ObjectKind::Stream, "a", "CREATE TABLE a", BTreeSet::new()).unwrap();
        catalog.add(ObjectKind::MaterializedView, "b", "…", ["a".to_string()].into()).unwrap();
        catalog.add(ObjectKind::View, "c", "…", ["b".to_string()].into()).unwrap();
        let mut again = Catalog::open(Some(dir.path())).unwrap();
        assert_eq!(again.dependents("a"), ["a", "b", "c"]);
        again.remove(&["b".into(), "c".into()]).unwrap();
        assert_eq!(Catalog::open(Some(dir.path())).unwrap().objects().len(), 1);
        assert_eq!(again.next_id(), 4, "ids are not used again");
    }

    #[test]
    fn a_damaged_catalog_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("catalog.json"), b"{").unwrap();
        let err = Catalog::open(Some(dir.path())).err().unwrap();
        assert!(err.hint().unwrap().contains("Restore"));
    }
}
