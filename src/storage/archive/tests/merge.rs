//! Merges keep every row; retention takes away what it says and nothing else.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn merging_keeps_all_rows_and_segments_still_divide_the_offsets() {
    let (_dir, stores) = stores();
    for store in stores {
        let archive = open(&store).await;
        for count in 1..40 {
            append(&archive, count * 7 % 50 + 1).await;
        }
        let (before, end) = (archive.current(), archive.current().end);
        while archive.compact().await.unwrap() {}
        let archived = archive.current();
        assert!(archived.segments.len() < 12, "{:?}", ranges(&archived));
        assert!(before.segments.len() == 39);
        let covered = ranges(&archived);
        assert!(covered.windows(2).all(|pair| pair[0].end == pair[1].start), "{covered:?}");
        assert_eq!((covered[0].start, covered.last().unwrap().end, archived.end), (0, end, end));
        let late = |archived: &Archived| archived.segments.iter().map(|s| s.late).sum::<u64>();
        assert_eq!(late(&archived), late(&before));
        assert_rows(&archive, &archived, 0..end).await;
        // Who has the version from before reads on, and so does who comes new.
        assert_rows(&archive, &before, 0..end).await;
        assert_eq!(archive.vacuum(Duration::from_secs(60)).await.unwrap(), 0);
        assert_rows(&archive, &before, 0..end).await;
        assert!(archive.vacuum(Duration::ZERO).await.unwrap() > 0);
        let archive = open(&store).await;
        assert_rows(&archive, &archive.current(), 0..end).await;
        assert_eq!(files(&store).await.len(), archive.current().files().count());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_of_columns_that_came_later_fills_up_with_null() {
    let archive = open(&memory()).await;
    let reduced = |end: u64| rows(end..end + 10).project(&[0, 2, 3, 4]).unwrap();
    for i in 0..8 {
        let end = i * 10;
        let batch = if i % 2 == 0 { reduced(end) } else { rows(end..end + 10) };
        archive.append(vec![batch], end..end + 10).await.unwrap();
    }
    let before = all(&archive, &archive.current(), &schema()).await;
    assert!(archive.compact().await.unwrap());
    assert_eq!(archive.current().segments.len(), 1);
    assert_eq!(all(&archive, &archive.current(), &schema()).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_merges_make_several_files_of_one_segment() {
    let store = memory();
    let archive = open(&store).await;
    for _ in 0..4 {
        append(&archive, 450).await;
    }
    let sizes = Sizes { file_rows: 2000, ..spec().sizes };
    let cut =
        Archive::open(Arc::clone(&store), url(), Spec { sizes: Sizes { row_group_rows: 100, ..sizes }, ..spec() });
    let cut = cut.await.unwrap();
    assert!(cut.compact().await.unwrap());
    assert_eq!(ranges(&cut.current()), std::slice::from_ref(&(0..1800)));
    assert_rows(&cut, &cut.current(), 0..1800).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_appends_go_on_while_segments_merge() {
    let store = memory();
    let archive = open(&store).await;
    for _ in 0..30 {
        append(&archive, 20).await;
    }
    let merging = {
        let archive = Arc::clone(&archive);
        tokio::spawn(async move { while archive.compact().await.unwrap() {} })
    };
    for _ in 0..20 {
        append(&archive, 20).await;
        let archived = archive.current();
        assert_rows(&archive, &archived, 0..archived.end).await;
    }
    merging.await.unwrap();
    while archive.compact().await.unwrap() {}
    assert_rows(&archive, &archive.current(), 0..1000).await;
}

/// Rows of several days, as many as the number of the day.
async fn days(archive: &Archive) -> u64 {
    for round in 0..2 {
        let base = rows(round * 15..round * 15 + 15);
        let days = (1..=5i64).flat_map(|day| std::iter::repeat_n(day, day as usize));
        let mut columns = base.columns().to_vec();
        columns[0] = Arc::new(times(days.map(|day| Some(MIDNIGHT + day * 24 * HOUR - 1))));
        let batch = RecordBatch::try_new(base.schema(), columns).unwrap();
        archive.append(vec![batch], round * 15..round * 15 + 15).await.unwrap();
    }
    30
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_go_in_whole() {
    let store = memory();
    let archive = open(&store).await;
    assert_eq!(archive.drop_days_before(i32::MAX).await.unwrap().files, 0);
    let end = days(&archive).await;
    let counted = |archived: &Archived| {
        let mut days: Vec<(i32, u64)> = archived.files().map(|f| (f.day.unwrap() - DAY, f.rows)).collect();
        days.sort_unstable();
        days
    };
    assert_eq!(archive.drop_days_before(DAY).await.unwrap().files, 0);
    let dropped = archive.drop_days_before(DAY + 2).await.unwrap();
    assert_eq!((dropped.files, dropped.rows), (4, 6));
    let archived = archive.current();
    assert_eq!(counted(&archived), [(2, 3), (2, 3), (3, 4), (3, 4), (4, 5), (4, 5)]);
    assert_eq!((archived.rows, archived.end, ranges(&archived)), (24, end, vec![0..15, 15..30]));
    // The rows of the days that are left.
    let found = offsets(&all(&archive, &archived, &schema()).await);
    assert_eq!(found, (3..15).chain(18..30).collect::<Vec<i64>>());
    let before = archived.bytes;
    let dropped = archive.shrink_to(before - 1).await.unwrap();
    assert_eq!((dropped.rows, archive.current().bytes), (6, before - dropped.bytes));
    assert_eq!(archive.shrink_to(0).await.unwrap().rows, 8);
    assert_eq!(counted(&archive.current()), [(4, 5), (4, 5)], "the newest day stays");
    let again = open(&store).await;
    assert_eq!((again.current().end, again.current().rows), (end, 10));
    append(&again, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_nobody_needs_is_deleted() {
    use object_store::ObjectStoreExt;
    let store = memory();
    let archive = open(&store).await;
    append(&archive, 10).await;
    let put = |path: &'static str| {
        let store = Arc::clone(&store);
        async move { store.put(&path.into(), "left-over".into()).await.unwrap() }
    };
    put("streams/access/_day=2026-11-21/0000000000000000-0000000000000010-00112233445566aa.parquet").await;
    put("streams/access/notes.txt").await;
    put("streams/access/_other/x.parquet").await;
    assert_eq!(archive.vacuum(Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(archive.vacuum(Duration::ZERO).await.unwrap(), 9);
    let left = files(&store).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert_rows(&archive, &archive.current(), 0..10).await;
}
