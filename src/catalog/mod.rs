//! What objects are there? Each CREATE is kept as its text and run again at start-up: first run and restart are the same
//! code. [`file`] is what they are kept in. [`relations`] leads from names to relations, [`system`] holds the relations of schema `logweir`, [`postgres`] what Postgres clients ask for.

pub(crate) mod file;
pub mod postgres;
pub mod relations;
pub mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Actor;
use crate::error::{Error, Result};
use crate::storage::fs::Fs;
use file::{Found, KeptFile};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    Stream,
    MaterializedView,
    View,
    ExternalTable,
    ReferenceTable,
    /// Feeds a stream; no relation.
    Source,
    /// Delivers a relation to others; no relation.
    Sink,
    /// Tells others; no relation.
    Notifier,
    /// Watches a relation; no relation itself.
    Alert,
    /// Tells of relations on a schedule; no relation itself.
    Report,
}

impl ObjectKind {
    /// Whether it can be read by its name.
    pub fn is_relation(self) -> bool {
        match self {
            ObjectKind::Source | ObjectKind::Sink | ObjectKind::Notifier | ObjectKind::Alert | ObjectKind::Report => {
                false
            }
            ObjectKind::Stream
            | ObjectKind::MaterializedView
            | ObjectKind::View
            | ObjectKind::ExternalTable
            | ObjectKind::ReferenceTable => true,
        }
    }

    /// As PostgreSQL's messages would call it.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::Stream => "table",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::View => "view",
            ObjectKind::ExternalTable => "external table",
            ObjectKind::ReferenceTable => "reference table",
            ObjectKind::Source => "source",
            ObjectKind::Sink => "sink",
            ObjectKind::Notifier => "notifier",
            ObjectKind::Alert => "alert",
            ObjectKind::Report => "report",
        }
    }

    /// What follows DROP for it.
    pub fn drop_word(self) -> &'static str {
        match self {
            ObjectKind::Stream | ObjectKind::ExternalTable | ObjectKind::ReferenceTable => "TABLE",
            ObjectKind::MaterializedView => "MATERIALIZED VIEW",
            ObjectKind::View => "VIEW",
            ObjectKind::Source => "SOURCE",
            ObjectKind::Sink => "SINK",
            ObjectKind::Notifier => "NOTIFIER",
            ObjectKind::Alert => "ALERT",
            ObjectKind::Report => "REPORT",
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
    /// The role that it belongs to. Without one it was made before there were roles, and is the administrators'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Names of the relations it reads.
    pub reads: BTreeSet<String>,
    /// Contents of a table that streams are joined with, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<TableVersion>,
}

/// A version of a table's content: its rows are in the table store, what is here says that they count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableVersion {
    pub number: u64,
    pub rows: u64,
    pub bytes: u64,
    /// The first offset of each stream that joins it.
    #[serde(default)]
    pub from: BTreeMap<String, u64>,
}

/// Where an object comes from: the statement, and for whom it runs.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub sql: &'a str,
    pub actor: &'a Actor,
}

/// All objects in the order of their creation.
pub struct Catalog {
    /// `None` without a data dir: nothing is kept.
    file: Option<KeptFile>,
    content: Content,
    fell_back: Option<Error>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Content {
    next_id: u32,
    objects: Vec<Object>,
    #[serde(default)]
    access: Access,
    /// What COMMENT ON said of a relation, and of its columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    comments: BTreeMap<String, Comments>,
}

/// What is said of a relation.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comments {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
}

/// Who may do what: the statements that make it so.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// Of this server alone: what is answered to names that nobody has is made from it.
    pub secret: String,
    /// Roles with their passwords as verifiers, memberships, privileges, tokens as hashes.
    pub statements: Vec<String>,
}

impl Catalog {
    /// Without a data dir nothing is kept.
    pub fn open(fs: Arc<dyn Fs>, dir: Option<&Path>) -> Result<Catalog> {
        let nothing = || Content { next_id: 1, ..Content::default() };
        let Some(dir) = dir else { return Ok(Catalog { file: None, content: nothing(), fell_back: None }) };
        let Found { file, content, fell_back } = KeptFile::open(fs, dir, &file::CATALOG)?;
        Ok(Catalog { file: Some(file), content: content.unwrap_or_else(nothing), fell_back })
    }

    /// Why the last change is missing, if the file was damaged.
    pub fn fell_back(&self) -> Option<&Error> {
        self.fell_back.as_ref()
    }

    /// Goes on without the last change: objects get no ids below `next_id`, and these are not there any more.
    pub fn mend(&mut self, next_id: u32, gone: &BTreeSet<String>) -> Result<()> {
        let mut content = self.content.clone();
        content.next_id = content.next_id.max(next_id);
        content.objects.retain(|object| !gone.contains(&object.name));
        self.store(content)
    }

    pub fn objects(&self) -> &[Object] {
        &self.content.objects
    }

    pub fn get(&self, name: &str) -> Option<&Object> {
        self.content.objects.iter().find(|o| o.name == name)
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.content.access
    }

    /// Puts others in the place of the statements that say who may do what.
    pub fn set_access(&mut self, access: Access) -> Result<()> {
        let content = Content { access, ..self.content.clone() };
        self.store(content)
    }

    /// What was said of relations, by their names.
    pub fn comments(&self) -> &BTreeMap<String, Comments> {
        &self.content.comments
    }

    /// Says something of a relation or of one of its columns; `None` takes it back.
    pub fn set_comment(&mut self, name: &str, column: Option<&str>, comment: Option<String>) -> Result<()> {
        let mut content = self.content.clone();
        let comments = content.comments.entry(name.to_string()).or_default();
        match (column, comment) {
            (None, comment) => comments.relation = comment,
            (Some(column), Some(comment)) => drop(comments.columns.insert(column.to_string(), comment)),
            (Some(column), None) => drop(comments.columns.remove(column)),
        }
        if *comments == Comments::default() {
            content.comments.remove(name);
        }
        self.store(content)
    }

    /// The id that the next object will get.
    pub fn next_id(&self) -> u32 {
        self.content.next_id
    }

    /// Adds an object and makes it durable.
    pub fn add(&mut self, kind: ObjectKind, name: &str, by: Origin<'_>, reads: BTreeSet<String>) -> Result<()> {
        self.add_table(kind, name, by, reads, Vec::new())
    }

    /// Adds an object with the versions of its content.
    pub fn add_table(
        &mut self,
        kind: ObjectKind,
        name: &str,
        by: Origin<'_>,
        reads: BTreeSet<String>,
        versions: Vec<TableVersion>,
    ) -> Result<()> {
        let mut content = self.content.clone();
        let (id, sql, owner) = (content.next_id, by.sql.to_string(), by.actor.role().map(str::to_string));
        content.objects.push(Object { id, kind, name: name.into(), sql, owner, reads, versions });
        content.next_id += 1;
        self.store(content)
    }

    /// Puts another statement in the place of an object's. What it reads now may have been made after it: it moves
    /// behind that, and those that read it move behind it.
    pub fn replace(&mut self, name: &str, sql: &str, reads: BTreeSet<String>) -> Result<()> {
        let mut content = self.content.clone();
        let moved = self.dependents(name);
        let (last, mut objects): (Vec<_>, Vec<_>) =
            std::mem::take(&mut content.objects).into_iter().partition(|o| moved.contains(&o.name));
        let (own, readers): (Vec<_>, Vec<_>) = last.into_iter().partition(|o| o.name == name);
        objects.extend(own.into_iter().map(|own| Object { sql: sql.to_string(), reads: reads.clone(), ..own }));
        objects.extend(readers);
        content.objects = objects;
        self.store(content)
    }

    /// Puts other versions in the place of a table's, and another statement if there is one.
    pub fn set_versions(&mut self, name: &str, sql: Option<&str>, versions: Vec<TableVersion>) -> Result<()> {
        let mut content = self.content.clone();
        if let Some(object) = content.objects.iter_mut().find(|o| o.name == name) {
            object.versions = versions;
            object.sql = sql.map_or_else(|| std::mem::take(&mut object.sql), str::to_string);
        }
        self.store(content)
    }

    /// Gives objects another owner and makes that durable.
    pub fn set_owner(&mut self, names: &BTreeSet<String>, owner: &str) -> Result<()> {
        let mut content = self.content.clone();
        let given = content.objects.iter_mut().filter(|object| names.contains(&object.name));
        given.for_each(|object| object.owner = Some(owner.to_string()));
        self.store(content)
    }

    /// Removes objects and makes that durable.
    pub fn remove(&mut self, names: &[String]) -> Result<()> {
        let mut content = self.content.clone();
        content.objects.retain(|o| !names.contains(&o.name));
        content.comments.retain(|name, _| !names.contains(name));
        self.store(content)
    }

    /// The object and all that read it, directly or through others: dependents last.
    pub fn dependents(&self, name: &str) -> Vec<String> {
        let mut found = vec![name.to_string()];
        let mut at = 0;
        // What belongs to a stream (`access__malformed`) has no object of its own.
        let reads = |object: &Object, name: &str| {
            object.reads.iter().any(|read| {
                let part = read.strip_prefix(name).is_some_and(|rest| rest.starts_with("__"));
                read == name || (part && self.get(read).is_none())
            })
        };
        while at < found.len() {
            for object in &self.content.objects {
                if reads(object, &found[at]) && !found.contains(&object.name) {
                    found.push(object.name.clone());
                }
            }
            at += 1;
        }
        found
    }

    fn store(&mut self, content: Content) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.write(&content)?;
        }
        self.content = content;
        Ok(())
    }
}

/// A name as an identifier of SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::Disk;

    static NOBODY: Actor = Actor::everything();

    fn by(sql: &str) -> Origin<'_> {
        Origin { sql, actor: &NOBODY }
    }

    fn open(dir: Option<&Path>) -> Result<Catalog> {
        Catalog::open(Arc::new(Disk), dir)
    }

    #[test]
    fn objects_survive_and_dependents_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = open(Some(dir.path())).unwrap();
        catalog.add(ObjectKind::Stream, "a", by("CREATE TABLE a"), BTreeSet::new()).unwrap();
        catalog.add(ObjectKind::MaterializedView, "b", by("…"), ["a".to_string()].into()).unwrap();
        catalog.add(ObjectKind::View, "c", by("…"), ["b".to_string()].into()).unwrap();
        let mut again = open(Some(dir.path())).unwrap();
        assert_eq!(again.dependents("a"), ["a", "b", "c"]);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join("catalog.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it may hold passwords");
        again.remove(&["b".into(), "c".into()]).unwrap();
        assert_eq!(open(Some(dir.path())).unwrap().objects().len(), 1);
        assert_eq!(again.next_id(), 4, "ids are not used again");
    }

    #[test]
    fn comments_are_kept_and_go_with_their_relation() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = open(Some(dir.path())).unwrap();
        catalog.add(ObjectKind::Stream, "a", by("…"), BTreeSet::new()).unwrap();
        catalog.set_comment("a", None, Some("one".into())).unwrap();
        catalog.set_comment("a", Some("x"), Some("two".into())).unwrap();
        let mut again = open(Some(dir.path())).unwrap();
        assert_eq!(again.comments()["a"].relation.as_deref(), Some("one"));
        assert_eq!(again.comments()["a"].columns["x"], "two");
        again.set_comment("a", Some("x"), None).unwrap();
        assert!(again.comments()["a"].columns.is_empty());
        again.remove(&["a".into()]).unwrap();
        assert!(again.comments().is_empty());
    }

    #[test]
    fn what_is_replaced_moves_behind_what_it_reads_now() {
        let mut catalog = open(None).unwrap();
        for (name, reads) in [("a", vec![]), ("b", vec!["a"]), ("c", vec!["b"]), ("d", vec!["a"]), ("e", vec![])] {
            let reads = reads.into_iter().map(str::to_string).collect();
            catalog.add(ObjectKind::View, name, by("…"), reads).unwrap();
        }
        catalog.replace("b", "new", ["e".to_string()].into()).unwrap();
        let order: Vec<&str> = catalog.objects().iter().map(|o| o.name.as_str()).collect();
        assert_eq!(order, ["a", "d", "e", "b", "c"]);
        assert_eq!(catalog.get("b").unwrap().sql, "new");
    }

    #[test]
    fn owners_are_kept_and_those_of_before_are_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = open(Some(dir.path())).unwrap();
        let alice = Actor::of("alice");
        catalog.add(ObjectKind::View, "a", by("…"), BTreeSet::new()).unwrap();
        catalog.add(ObjectKind::View, "b", Origin { sql: "…", actor: &alice }, BTreeSet::new()).unwrap();
        catalog.replace("b", "new", BTreeSet::new()).unwrap();
        let owners = |catalog: &Catalog| {
            let owners = catalog.objects().iter().map(|object| object.owner.clone());
            owners.collect::<Vec<_>>()
        };
        assert_eq!(owners(&open(Some(dir.path())).unwrap()), [None, Some("alice".to_string())]);
        catalog.set_owner(&["a".to_string(), "b".to_string()].into(), "bob").unwrap();
        assert_eq!(owners(&open(Some(dir.path())).unwrap()), [Some("bob".to_string()), Some("bob".to_string())]);
        let old: Object = serde_json::from_str(r#"{"id":1,"kind":"view","name":"v","sql":"","reads":[]}"#).unwrap();
        assert_eq!(old.owner, None);
    }

    #[test]
    fn versions_are_kept_with_their_table() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = open(Some(dir.path())).unwrap();
        let version = |number, from: &[(&str, u64)]| TableVersion {
            number,
            rows: 1,
            bytes: 2,
            from: from.iter().map(|(s, at)| (s.to_string(), *at)).collect(),
        };
        let kind = ObjectKind::ReferenceTable;
        catalog.add_table(kind, "t", by("one"), BTreeSet::new(), vec![version(1, &[])]).unwrap();
        catalog.set_versions("t", Some("two"), vec![version(1, &[]), version(2, &[("s", 9)])]).unwrap();
        catalog.set_versions("t", None, vec![version(2, &[("s", 9)])]).unwrap();
        let again = open(Some(dir.path())).unwrap();
        let table = again.get("t").unwrap();
        assert_eq!((table.sql.as_str(), table.versions.as_slice()), ("two", &[version(2, &[("s", 9)])][..]));
    }
}
