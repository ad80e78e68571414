//! Tests of the model of a disk: what it keeps for sure, and that it does lose the rest.

use std::collections::BTreeSet;

use super::*;
use crate::storage::fs::{read, write_atomic};

const SEEDS: u64 = 1500;

/// A disk with the durable directory `d`.
fn disk(seed: u64) -> FaultyFs {
    let fs = FaultyFs::new(seed);
    fs.create_dir_all(Path::new("d")).unwrap();
    fs
}

fn content(fs: &FaultyFs, path: &str) -> Option<String> {
    read(fs, Path::new(path)).ok().map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..SEEDS {
        let fs = disk(seed);
        let file = fs.create(Path::new("d/f")).unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        file.write_all_at(b"ab", 4).unwrap();
        file.truncate(8).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(b"tail", 8).unwrap();
        fs.create(Path::new("d/g")).unwrap();
        let fs = fs.crash().crash();
        assert_eq!(&content(&fs, "d/f").unwrap()[..8], "0123ab67");
    }
}

#[test]
fn what_was_not_synced_may_be_there_in_any_part() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let fs = disk(seed);
        let file = fs.create(Path::new("d/f")).unwrap();
        file.write_all_at(b"xx", 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(b"aa", 2).unwrap();
        file.write_all_at(b"bb", 4).unwrap();
        file.truncate(5).unwrap();
        seen.insert(content(&fs.crash(), "d/f").unwrap());
    }
    let expected = ["xx", "xxa", "xxaa", "xxaabb", "xxaab", "xx\0\0bb", "xx\0\0b", "xx\0\0", "xxaa\0b"];
    for expected in expected {
        assert!(seen.contains(expected), "{expected:?} is not among {seen:?}");
    }
    assert!(seen.iter().all(|content| content.starts_with("xx")));
}

#[test]
fn names_are_lost_or_kept_one_by_one_until_the_directory_is_synced() {
    for synced in [false, true] {
        let mut seen = BTreeSet::new();
        for seed in 0..SEEDS {
            let fs = disk(seed);
            let write = |name: &str, text: &str| {
                let file = fs.create(Path::new(name)).unwrap();
                file.write_all_at(text.as_bytes(), 0).unwrap();
                file.sync_data().unwrap();
            };
            write("d/old", "old");
            write("d/gone", "gone");
            fs.sync_dir(Path::new("d")).unwrap();
            write("d/new", "new");
            fs.rename(Path::new("d/new"), Path::new("d/old")).unwrap();
            fs.remove(Path::new("d/gone")).unwrap();
            if synced {
                fs.sync_dir(Path::new("d")).unwrap();
            }
            let fs = fs.crash();
            seen.insert(["d/old", "d/new", "d/gone"].map(|path| content(&fs, path).unwrap_or_default()));
        }
        let seen: Vec<_> = seen.iter().map(|all| all.join(",")).collect();
        match synced {
            true => assert_eq!(seen, ["new,,"]),
            false => assert_eq!(seen, ["new,,", "new,,gone", "old,,", "old,,gone", "old,new,", "old,new,gone"]),
        }
    }
}

#[test]
fn a_file_moved_between_directories_has_one_name_after_a_power_cut() {
    for seed in 0..SEEDS {
        let fs = disk(seed);
        fs.create_dir_all(Path::new("e")).unwrap();
        fs.create(Path::new("d/f")).unwrap();
        fs.sync_dir(Path::new("d")).unwrap();
        fs.rename(Path::new("d/f"), Path::new("e/f")).unwrap();
        if seed % 2 == 0 {
            fs.sync_dir(Path::new("d")).unwrap();
        }
        let fs = fs.crash();
        let names = [content(&fs, "d/f"), content(&fs, "e/f")];
        assert_eq!(names.iter().flatten().count(), 1, "{names:?}");
        assert!(seed % 2 == 1 || names[1].is_some());
    }
}

#[test]
fn an_atomic_write_leaves_the_old_or_the_new_content_wherever_the_power_is_cut() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..SEEDS {
        for crash_at in 1..8 {
            let fs = disk(seed);
            write_atomic(&fs, Path::new("d/f"), b"old").unwrap();
            let before = fs.operations();
            fs.faults(|faults| faults.crash_at = Some(before + crash_at));
            let written = write_atomic(&fs, Path::new("d/f"), b"new");
            let found = content(&fs.crash(), "d/f").unwrap();
            assert!(found == "new" || (found == "old" && written.is_err()), "{found:?}");
            (old, new) = (old + u32::from(found == "old"), new + u32::from(found == "new" && written.is_err()));
        }
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn a_failed_sync_loses_what_later_syncs_claim() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let fs = disk(seed);
        let file = fs.create(Path::new("d/f")).unwrap();
        fs.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(b"safe", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"lost", 4).unwrap();
        fs.faults(|faults| faults.sync_error = 1.0);
        file.sync_data().unwrap_err();
        fs.faults(|faults| faults.sync_error = 0.0);
        file.write_all_at(b"later", 8).unwrap();
        file.sync_data().unwrap();
        let found = content(&fs.crash(), "d/f").unwrap();
        assert!(found.starts_with("safe") && found.ends_with("later") && found.len() == 13);
        lost += u32::from(!found.contains("lost"));
    }
    assert!(lost > 0);
}

#[test]
fn faults_come_as_often_as_told_and_are_counted() {
    let fs = disk(1);
    let file = fs.create(Path::new("d/f")).unwrap();
    file.write_all_at(&[0; 64], 0).unwrap();
    assert_eq!(fs.injected(), Injected::default());
    fs.faults(|faults| (faults.write_error, faults.short_write, faults.flip) = (0.2, 0.2, 0.2));
    let mut failed = 0;
    for _ in 0..1000 {
        failed += u64::from(file.write_at(&[0; 64], 0).is_err());
        file.read_full_at(&mut [0; 64], 0).unwrap();
    }
    let injected = fs.injected();
    assert_eq!(injected.write_errors, failed);
    for count in [failed, injected.short_writes, injected.flips] {
        assert!((100..300).contains(&count), "{injected:?}");
    }
    fs.faults(|faults| *faults = Faults { full: 1.0, full_for: 3, ..Faults::default() });
    assert_eq!(file.write_all_at(&[0; 64], 64).unwrap_err().kind(), io::ErrorKind::StorageFull);
    fs.faults(|faults| faults.full = 0.0);
    let refused = (0..9).filter(|_| !matches!(file.write_at(&[0; 64], 64), Ok(64))).count();
    assert_eq!(refused, 3);
    fs.faults(|faults| faults.capacity = Some(200));
    assert_eq!(fs.free_space(Path::new("d")).unwrap(), 200 - file.size().unwrap());
    assert_eq!(file.write_all_at(&[0; 200], 64).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.size().unwrap(), 200);
    fs.rot(Path::new("d/f")).unwrap().unwrap();
    assert_eq!(content(&fs.kill(), "d/f").unwrap().bytes().filter(|&byte| byte != 0).count(), 1);
}

#[test]
fn a_disk_without_power_answers_nothing_and_seeds_repeat() {
    let run = |seed| {
        let fs = disk(seed);
        let last = fs.operations() + 20;
        fs.faults(|faults| (faults.short_write, faults.crash_at) = (0.5, Some(last)));
        let file = fs.create(Path::new("d/f")).unwrap();
        while file.write_all_at(b"some text", file.size().unwrap_or(0)).is_ok() {}
        assert!(file.size().is_err() && fs.list(Path::new("d")).is_err());
        content(&fs.crash(), "d/f")
    };
    let all: Vec<_> = (0..20).map(run).collect();
    assert_eq!(all, (0..20).map(run).collect::<Vec<_>>());
    assert!(all.iter().any(|content| *content != all[0]));
}

#[test]
fn directories_hold_what_is_in_them() {
    let fs = disk(1);
    let path = Path::new("/d/a/b");
    fs.create_dir_all(path).unwrap();
    fs.create_dir_all(path).unwrap();
    fs.create_new(&path.join("f")).unwrap().write_all_at(b"12", 0).unwrap();
    assert_eq!(fs.create_new(&path.join("f")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs.create(&path.join("x/f")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs.open_read(path).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    let found = fs.list_all(Path::new("/d")).unwrap();
    assert_eq!(found, [(path.join("f"), fs.metadata(&path.join("f")).unwrap())]);
    assert_eq!((found[0].1.len, fs.list(Path::new("d")).unwrap()), (2, vec![PathBuf::from("d/a")]));
    assert_eq!(fs.list_all(Path::new("/nowhere")).unwrap(), []);
    fs.rename_new(&path.join("f"), &path.join("g")).unwrap();
    fs.create_new(&path.join("f")).unwrap();
    let taken = fs.rename_new(&path.join("f"), &path.join("g")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    fs.remove_dir_all(Path::new("d/a")).unwrap();
    assert_eq!(fs.list_all(Path::new("d")).unwrap(), []);
}
