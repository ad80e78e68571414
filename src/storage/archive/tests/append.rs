//! Appends happen once, whatever fails when.

use std::io::ErrorKind;

use super::store::{Faulty, When};
use super::*;
use crate::error::Kind;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_there_again_after_opening() {
    let (_dir, stores) = stores();
    for store in stores {
        let archive = open(&store).await;
        assert_eq!((archive.current().end, archive.current().version), (0, None));
        let mut end = 0;
        for count in [100, 1, 350] {
            let archived = append(&archive, count).await;
            end += count;
            assert_eq!(archived.end, end);
        }
        // Nothing but malformed lines.
        archive.append(vec![], 451..460).await.unwrap();
        assert_eq!(ranges(&archive.current()), [0..100, 100..101, 101..451]);
        let (before, archive) = (archive.current(), open(&store).await);
        let archived = archive.current();
        assert_eq!((archived.end, archived.rows, archived.version), (460, 451, before.version));
        for (segment, same) in archived.segments.iter().zip(&before.segments) {
            assert_eq!(format!("{segment:?}"), format!("{same:?}"));
        }
        let segment = &archived.segments[0];
        assert_eq!((segment.rows, segment.late), (100, 10));
        // Row 1 is a second before row 0.
        let start = MIDNIGHT + 20 * HOUR;
        assert_eq!(segment.times, Some((start - 1_000_000, start + 98_000_000)));
        assert_rows(&archive, &archived, 0..451).await;
        append(&archive, 0).await;
        let wrong = archive.append(vec![rows(470..480)], 470..480).await.unwrap_err();
        assert!(wrong.message().contains("from offset 470 on") && wrong.message().contains("460"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_cut_short_by_checkpoints() {
    let (_dir, stores) = stores();
    for store in stores {
        let archive = open(&store).await;
        for i in 0..120 {
            // Those of every third have no rows.
            match i % 3 {
                0 => {
                    let end = archive.current().end;
                    archive.append(vec![], end..end + 1).await.unwrap();
                }
                _ => {
                    let end = archive.current().end;
                    let batch = rows(end..end + 2);
                    archive.append(vec![batch], end..end + 2).await.unwrap();
                }
            }
        }
        let log: Vec<_> = futures::TryStreamExt::try_collect(store.list(None)).await.unwrap();
        let checkpoints = log.iter().filter(|meta| meta.location.as_ref().contains(".checkpoint.")).count();
        assert_eq!(checkpoints, 2);
        let again = open(&store).await;
        let (one, other) = (archive.current(), again.current());
        assert_eq!((one.end, one.rows, one.version), (200, 160, other.version));
        assert_eq!(format!("{:?}", one.segments), format!("{:?}", other.segments));
        assert_eq!(offsets(&all(&again, &other, &schema()).await).len(), 160);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_made_once_however_often_it_is_tried() {
    let log = "_delta_log/0000000000000000000";
    for (path, when) in
        [("_day=", When::Before), ("_day=", When::After), (log, When::Before), (log, When::After), (log, When::Twice)]
    {
        let inner = memory();
        let faulty = Faulty::new(Arc::clone(&inner));
        let store: Arc<dyn ObjectStore> = faulty.clone();
        let archive = open(&store).await;
        // The first one also makes the table.
        for end in [50, 100, 150, 200] {
            faulty.fail(path, when, ErrorKind::TimedOut);
            let offsets = end - 50..end;
            let mut tries = 0;
            while let Err(err) = archive.append(vec![rows(offsets.clone())], offsets.clone()).await {
                assert_eq!(err.kind(), Kind::Io, "{err}");
                assert!(err.message().starts_with("archive of stream \"access\": could not "), "{err}");
                tries += 1;
                assert!(tries < 3);
            }
            // Who does not know that it is there tries once more.
            archive.append(vec![rows(offsets.clone())], offsets.clone()).await.unwrap();
            assert!(faulty.faults.lock().is_empty());
            assert_rows(&archive, &archive.current(), 0..end).await;
        }
        let again = open(&inner).await;
        assert_rows(&again, &again.current(), 0..200).await;
        assert_eq!(files(&inner).await.len(), 4, "what was written in vain is gone, {path} {when:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let inner = memory();
    let faulty = Faulty::new(Arc::clone(&inner));
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let archive = open(&store).await;
    append(&archive, 10).await;
    for path in ["_day=", "_delta_log"] {
        faulty.fail(path, When::Before, ErrorKind::StorageFull);
        let err = archive.append(vec![rows(10..20)], 10..20).await.unwrap_err();
        assert_eq!(err.kind(), Kind::DiskFull, "{err}");
        assert_eq!(files(&inner).await.len(), 1);
    }
    append(&archive, 10).await;
    assert_rows(&archive, &archive.current(), 0..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_do_not_both_have_their_way() {
    let store = memory();
    let (one, other) = (open(&store).await, open(&store).await);
    append(&one, 10).await;
    // It made the same table, so it finds out when it writes.
    let err = other.append(vec![rows(0..5)], 0..5).await.unwrap_err();
    assert_eq!(err.kind(), Kind::Corrupted, "{err}");
    assert!(err.detail().unwrap().contains("another server"), "{err}");
    append(&other, 10).await;
    let err = one.append(vec![rows(10..15)], 10..15).await.unwrap_err();
    assert!(err.message().contains("goes up to 20"), "{err}");
    assert_rows(&one, &one.current(), 0..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_later_and_are_called_anything() {
    let (_dir, stores) = stores();
    for store in stores {
        let archive = open(&store).await;
        append(&archive, 20).await;
        let batch = |names: &[&str], first: i64| {
            let mut fields = vec![Field::new("ts", timestamp_type(), true)];
            let mut columns: Vec<Arc<dyn Array>> = vec![Arc::new(times([Some(MIDNIGHT), Some(MIDNIGHT + first)]))];
            for name in names {
                fields.push(Field::new(*name, DataType::Utf8View, true));
                columns.push(Arc::new(StringViewArray::from_iter([Some(*name), None])));
            }
            columns.push(Arc::new(Int64Array::from(vec![first, first + 1])));
            columns.push(Arc::new(times([None, None])));
            RecordBatch::try_new(with_own(&Arc::new(Schema::new(fields))), columns).unwrap()
        };
        let odd = ["a b", "a,b", "PATH", "k8s.io/app", "", "größe {x}\n=\t", "\"quoted\"", "_day"];
        archive.append(vec![batch(&odd[..3], 20), batch(&odd[2..], 22)], 20..24).await.unwrap();
        let archive = open(&store).await;
        let fields = odd.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8View, true)));
        let wanted = Arc::new(Schema::new(schema().fields().iter().cloned().chain(fields).collect::<Vec<_>>()));
        let found = all(&archive, &archive.current(), &wanted).await;
        assert_eq!(offsets(&found), (0..24).collect::<Vec<i64>>());
        for (i, name) in odd.iter().enumerate() {
            let column = found.column_by_name(name).unwrap().as_string_view();
            let values: Vec<Option<&str>> = column.iter().collect();
            assert!(values[..20].iter().all(Option::is_none));
            let expected = [(i < 3).then_some(*name), None, (i >= 2).then_some(*name), None];
            assert_eq!(&values[20..], &expected, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_back_with_another_type_keeps_both() {
    let store = memory();
    let archive = open(&store).await;
    append(&archive, 3).await;
    let fields = vec![Field::new("ts", timestamp_type(), true), Field::new("status", DataType::Utf8View, true)];
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(times([Some(MIDNIGHT); 2])),
        Arc::new(StringViewArray::from(vec!["404", "teapot"])),
        Arc::new(Int64Array::from(vec![3, 4])),
        Arc::new(times([None; 2])),
    ];
    let batch = RecordBatch::try_new(with_own(&Arc::new(Schema::new(fields))), columns).unwrap();
    archive.append(vec![batch], 3..5).await.unwrap();
    let numbers = all(&archive, &archive.current(), &schema()).await;
    let numbers: Vec<_> = numbers.column(2).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(200), Some(201), Some(202), Some(404), None]);
    let wanted = Arc::new(Schema::new(vec![Field::new("status", DataType::Utf8View, true)]));
    let texts = all(&archive, &archive.current(), &wanted).await;
    let texts: Vec<_> = texts.column(0).as_string_view().iter().flatten().collect();
    assert_eq!(texts, ["200", "201", "202", "404", "teapot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_types_come_back_as_they_were() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let fields = vec![
        Field::new("ts", timestamp_type(), true),
        Field::new("small", DataType::Int16, true),
        Field::new("single", DataType::Float32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("file", DataType::Utf8, true),
        Field::new("list", list, true),
    ];
    let lists = vec![Some(vec![Some(1), None]), None, Some(vec![])];
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(times([Some(i64::MAX / 2), Some(-1), Some(MIDNIGHT)])),
        Arc::new(arrow::array::Int16Array::from(vec![Some(-1), None, Some(i16::MAX)])),
        Arc::new(arrow::array::Float32Array::from(vec![Some(0.5), None, Some(f32::NAN)])),
        Arc::new(Float64Array::from(vec![Some(f64::INFINITY), Some(-0.0), None])),
        Arc::new(arrow::array::BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(arrow::array::BinaryArray::from(vec![Some(&b"\xff\0"[..]), None, Some(b"")])),
        Arc::new(arrow::array::StringArray::from(vec![Some("a"), None, Some("\u{10FFFF}")])),
        Arc::new(arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
        Arc::new(Int64Array::from(vec![0, 1, 2])),
        Arc::new(times([None, None, None])),
    ];
    let wanted = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(with_own(&wanted), columns).unwrap();
    let store = memory();
    open(&store).await.append(vec![batch.clone()], 0..3).await.unwrap();
    let archive = open(&store).await;
    let found = all(&archive, &archive.current(), &wanted).await;
    // NaN is not itself, so texts are compared.
    assert_eq!(format!("{found:?}"), format!("{batch:?}"));
    assert_eq!(archive.current().files().count(), 3, "a file per day");
}
