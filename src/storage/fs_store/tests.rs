//! Tests of files as objects, on the disk of the system and on the model of one.

use futures::TryStreamExt;
use object_store::{GetRange, ObjectStoreExt};

use super::*;
use crate::storage::faulty_fs::FaultyFs;
use crate::storage::fs::Disk;

fn at(location: &str) -> Location {
    Location::from(location)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

async fn names(store: &FsStore, prefix: Option<&str>) -> Vec<String> {
    let all: Vec<_> = store.list(prefix.map(at).as_ref()).try_collect().await.unwrap();
    all.into_iter().map(|meta| meta.location.to_string()).collect()
}

async fn content(store: &FsStore, location: &str) -> Result<Bytes> {
    store.get(&at(location)).await?.bytes().await
}

fn create() -> PutOptions {
    PutMode::Create.into()
}

/// The same on the disk of the system and on the model of one.
fn stores() -> (tempfile::TempDir, Vec<FsStore>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FsStore::new(Arc::new(Disk), dir.path().join("made/later"));
    (dir, vec![disk, FsStore::new(Arc::new(FaultyFs::new(1)), "/made/later".into())])
}

#[test]
fn objects_are_put_read_listed_and_deleted() {
    let (_dir, stores) = stores();
    for store in stores {
        run(async {
            assert_eq!(names(&store, None).await, [""; 0]);
            assert!(matches!(content(&store, "a").await, Err(Error::NotFound { .. })));
            let put = store.put(&at("a/b=1/x"), "0123456789".into()).await.unwrap();
            store.put(&at("a/y"), PutPayload::from_iter([Bytes::from("y"), Bytes::from("z")])).await.unwrap();
            store.put(&at("a.c"), "".into()).await.unwrap();
            assert_eq!(content(&store, "a/y").await.unwrap(), "yz");
            assert_eq!(content(&store, "a.c").await.unwrap(), "");
            // A directory is no object, and an object is no directory.
            assert!(matches!(content(&store, "a").await, Err(Error::NotFound { .. })));
            assert!(matches!(content(&store, "a/y/z").await, Err(Error::NotFound { .. })));

            let x = at("a/b=1/x");
            let meta = store.head(&x).await.unwrap();
            assert_eq!((meta.size, &meta.e_tag, &meta.location), (10, &put.e_tag, &x));
            let ranges = store.get_ranges(&x, &[7..10, 0..2, 3..3]).await.unwrap();
            assert_eq!(ranges, ["789", "01", ""]);
            assert!(store.get_ranges(&x, std::slice::from_ref(&(7..11))).await.is_err());
            for (range, expected) in
                [(GetRange::Offset(8), "89"), (GetRange::Suffix(3), "789"), (GetRange::Bounded(5..99), "56789")]
            {
                let options = GetOptions { range: Some(range), ..GetOptions::default() };
                assert_eq!(store.get_opts(&x, options).await.unwrap().bytes().await.unwrap(), expected);
            }
            assert!(store.get_range(&x, 10..12).await.is_err());
            let options = GetOptions { if_match: Some("other".into()), ..GetOptions::default() };
            assert!(matches!(store.get_opts(&x, options).await, Err(Error::Precondition { .. })));
            let options = GetOptions { if_none_match: meta.e_tag.clone(), ..GetOptions::default() };
            assert!(matches!(store.get_opts(&x, options).await, Err(Error::NotModified { .. })));

            assert_eq!(names(&store, None).await, ["a.c", "a/b=1/x", "a/y"]);
            assert_eq!(names(&store, Some("a/b=1")).await, ["a/b=1/x"]);
            assert_eq!(names(&store, Some("a/y")).await, [""; 0]);
            let top = store.list_with_delimiter(None).await.unwrap();
            assert_eq!((top.common_prefixes, top.objects.len()), (vec![at("a")], 1));
            let below = store.list_with_delimiter(Some(&at("a"))).await.unwrap();
            assert_eq!((below.common_prefixes, &below.objects[0].location), (vec![at("a/b=1")], &at("a/y")));

            store.copy(&x, &at("copy/x")).await.unwrap();
            assert!(matches!(store.copy_if_not_exists(&x, &at("a/y")).await, Err(Error::AlreadyExists { .. })));
            store.rename(&at("a/y"), &at("moved/y")).await.unwrap();
            let taken = store.rename_if_not_exists(&at("moved/y"), &at("copy/x")).await;
            assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
            assert!(matches!(store.rename(&at("no"), &at("new")).await, Err(Error::NotFound { .. })));
            assert_eq!(names(&store, None).await, ["a.c", "a/b=1/x", "copy/x", "moved/y"]);

            let all = store.list(None).map_ok(|meta| meta.location).boxed();
            assert_eq!(store.delete_stream(all).try_collect::<Vec<_>>().await.unwrap().len(), 4);
            assert!(matches!(store.delete(&x).await, Err(Error::NotFound { .. })));
            assert_eq!(names(&store, None).await, [""; 0]);
            // Directories that somebody removed are made again.
            store.0.fs.remove_dir_all(&store.0.root).unwrap();
            store.put(&x, "again".into()).await.unwrap();
            assert_eq!(names(&store, None).await, ["a/b=1/x"]);
        });
    }
}

#[test]
fn a_large_object_comes_and_goes_in_pieces() {
    let (_dir, stores) = stores();
    for store in stores {
        run(async {
            let bytes: Bytes = (0..2 * PIECE + 5).map(|i| (i * 7 % 251) as u8).collect();
            let mut upload = store.put_multipart(&at("big")).await.unwrap();
            let middle = 5_000_001;
            let first = upload.put_part(bytes.slice(..middle).into());
            let second = upload.put_part(bytes.slice(middle..).into());
            second.await.unwrap();
            assert_eq!(names(&store, None).await, [""; 0]);
            assert!(upload.complete().await.is_err(), "a part is missing");
            first.await.unwrap();
            upload.complete().await.unwrap();
            assert!(upload.complete().await.is_err());
            let found: Vec<_> = store.get(&at("big")).await.unwrap().into_stream().try_collect().await.unwrap();
            assert_eq!(found.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE as usize, PIECE as usize, 5]);
            assert_eq!(found.concat(), bytes);

            let mut aborted = store.put_multipart(&at("aborted")).await.unwrap();
            aborted.put_part("x".into()).await.unwrap();
            aborted.abort().await.unwrap();
            let mut dropped = store.put_multipart(&at("dropped")).await.unwrap();
            dropped.put_part("x".into()).await.unwrap();
            drop(dropped);
            assert_eq!(store.0.fs.list(&store.0.root).unwrap().len(), 1);
        });
    }
}

#[test]
fn of_many_who_create_an_object_one_succeeds() {
    let (_dir, stores) = stores();
    for store in stores {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
        let won = runtime.block_on(async {
            let tasks: Vec<_> = (0..16)
                .map(|i| {
                    let store = store.clone();
                    let put = async move { store.put_opts(&at("log/1"), format!("{i}").into(), create()).await };
                    tokio::spawn(put)
                })
                .collect();
            let mut won = Vec::new();
            for (i, task) in tasks.into_iter().enumerate() {
                match task.await.unwrap() {
                    Ok(_) => won.push(i),
                    Err(err) => assert!(matches!(err, Error::AlreadyExists { .. }), "{err}"),
                }
            }
            assert_eq!(names(&store, None).await, ["log/1"]);
            assert_eq!(content(&store, "log/1").await.unwrap(), won[0].to_string());
            won
        });
        assert_eq!(won.len(), 1);
        assert_eq!(store.0.fs.list(&store.0.root.join("log")).unwrap().len(), 1, "nothing is left behind");
    }
}

#[test]
fn temporary_names_are_hidden_and_swept() {
    let (_dir, stores) = stores();
    for store in stores {
        run(async {
            store.put(&at("a/x"), "x".into()).await.unwrap();
            std::mem::forget(store.0.temporary(&store.0.root.join("a/y")).unwrap());
            assert_eq!(names(&store, None).await, ["a/x"]);
            assert!(store.put(&at("a/.logweir-1.tmp"), "x".into()).await.is_err());
            assert!(store.put(&at(""), "x".into()).await.is_err());
            let now = store.head(&at("a/x")).await.unwrap().last_modified;
            assert_eq!(store.sweep(now - chrono::TimeDelta::hours(1)).unwrap(), 0);
            assert_eq!(store.sweep(now + chrono::TimeDelta::hours(1)).unwrap(), 1);
            assert_eq!(names(&store, None).await, ["a/x"]);
        });
    }
}

#[test]
fn a_full_disk_can_be_told_from_a_broken_one_and_leaves_nothing() {
    let fs = FaultyFs::new(1);
    let store = FsStore::new(Arc::new(fs.clone()), "root".into());
    run(async {
        store.put(&at("first"), "1".into()).await.unwrap();
        fs.faults(|faults| faults.capacity = Some(100));
        let err = store.put(&at("x"), vec![7; 200].into()).await.unwrap_err();
        assert_eq!(io_error(&err).map(io::Error::kind), Some(io::ErrorKind::StorageFull), "{err}");
        assert!(err.to_string().contains("could not write \"root/x\""), "{err}");
        let mut upload = store.put_multipart(&at("x")).await.unwrap();
        let err = upload.put_part(vec![7; 200].into()).await.unwrap_err();
        assert_eq!(io_error(&err).map(io::Error::kind), Some(io::ErrorKind::StorageFull), "{err}");
        drop(upload);
        fs.faults(|faults| faults.write_error = 1.0);
        let err = store.put(&at("x"), "7".into()).await.unwrap_err();
        assert_eq!(io_error(&err).map(io::Error::kind), Some(io::ErrorKind::Other), "{err}");
    });
    assert_eq!(fs.list(Path::new("root")).unwrap().len(), 1);
}

/// Wherever the power is cut: what was put, renamed and deleted stays so, and what was not is there in whole or not
/// at all.
#[test]
fn what_a_store_said_it_did_survives_a_power_cut() {
    for seed in 0..1500 {
        let fs = FaultyFs::new(seed);
        let store = FsStore::new(Arc::new(fs.clone()), "data/table".into());
        fs.faults(|faults| (faults.short_write, faults.crash_at) = (0.3, Some(1 + seed % 70)));
        let text = "0123456789".repeat(10);
        let done = run(async {
            let mut done = Vec::new();
            done.push(store.put_opts(&at("log/1"), text.clone().into(), create()).await.is_ok());
            done.push(store.put(&at("day=1/file"), text.clone().into()).await.is_ok());
            done.push(store.rename(&at("day=1/file"), &at("day=2/file")).await.is_ok());
            let mut upload = store.put_multipart(&at("parts")).await;
            if let Ok(upload) = &mut upload {
                let _ = upload.put_part(text.clone().into()).await;
            }
            done.push(match upload {
                Ok(mut upload) => upload.complete().await.is_ok(),
                Err(_) => false,
            });
            done.push(store.delete(&at("log/1")).await.is_ok());
            done
        });
        // Once the power is cut nothing succeeds.
        assert!(done.is_sorted_by(|a, b| a >= b));
        let store = FsStore::new(Arc::new(fs.crash()), "data/table".into());
        let found = run(async {
            let names = names(&store, None).await;
            for name in &names {
                assert_eq!(content(&store, name).await.unwrap(), text, "seed {seed}: {name}");
            }
            names
        });
        let has = |name: &str| found.iter().any(|found| found == name);
        let held = [
            !done[0] || has("log/1") || done[3],
            !done[1] || has("day=1/file") != has("day=2/file"),
            !done[2] || has("day=2/file"),
            !done[3] || has("parts"),
            !done[4] || !has("log/1"),
        ];
        assert_eq!(held, [true; 5], "seed {seed}: {done:?} {found:?}");
    }
}

#[test]
fn what_was_seen_stays_although_who_made_it_died_before_it_was_synced() {
    for seed in 0..20 {
        let fs = FaultyFs::new(seed);
        fs.create_dir_all(Path::new("/t")).unwrap();
        let file = fs.create_new(Path::new("/t/new")).unwrap();
        file.write_all_at(b"1", 0).unwrap();
        file.sync_data().unwrap();
        fs.rename(Path::new("/t/new"), Path::new("/t/a")).unwrap();
        let fs = fs.kill();
        let store = FsStore::new(Arc::new(fs.clone()), "/t".into());
        let seen = if seed % 2 == 0 { run(names(&store, None)) == ["a"] } else { run(content(&store, "a")).is_ok() };
        assert!(seen, "a killed process leaves its files");
        let store = FsStore::new(Arc::new(fs.crash()), "/t".into());
        assert_eq!(run(content(&store, "a")).unwrap(), "1", "seed {seed}");
    }
}
