//! Reading one group of a rollup without a plan: what a dashboard or an application asks for by key, thousands of times
//! a second. The partial rows of the group are looked up in each run and merged by the aggregates' own accumulators,
//! as `AggregateMode::Final` would; all in memory, so nothing here waits.
//!
//! A run that is ordered finds a group by halving. One that is not is looked through, and once that was done often
//! enough it gets an [`Index`], which costs about as much as those looks did.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::run::Run;
use super::slice::{Group, Order};
use crate::error::Result;

/// Runs with fewer rows are looked through each time.
const SMALL: usize = 1024;

/// Looks through a run before it gets an index.
pub const LOOKS: u32 = 100;

/// The rows of an unordered run by the hash of their group: 12 bytes for each.
pub struct Index {
    /// Ascending.
    hashes: Vec<u64>,
    /// Of each hash the number of its row in the run.
    rows: Vec<u32>,
    /// Of each block the number of its first row.
    starts: Vec<u32>,
}

impl Index {
    fn of(run: &Run, order: &Order) -> Result<Index> {
        let (mut all, mut starts) = (Vec::with_capacity(run.rows), Vec::new());
        for number in 0..run.blocks().len() {
            starts.push(all.len() as u32);
            let first = all.len() as u32;
            let hashes = order.hashes(&run.block(number)?)?;
            all.extend(hashes.into_iter().zip(first..));
        }
        all.sort_unstable();
        let (hashes, rows) = all.into_iter().unzip();
        Ok(Index { hashes, rows, starts })
    }

    /// Block and row in it of all rows with a hash.
    fn find(&self, hash: u64) -> impl Iterator<Item = (usize, usize)> {
        let first = self.hashes.partition_point(|other| *other < hash);
        let found = self.hashes[first..].iter().zip(&self.rows[first..]).take_while(move |(other, _)| **other == hash);
        found.map(|(_, &row)| {
            let block = self.starts.partition_point(|start| *start <= row) - 1;
            (block, (row - self.starts[block]) as usize)
        })
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.hashes.len() * 12 + self.starts.len() * 4
    }
}

/// The rows of `group` in a run in memory, and of no other. `None` where that is more than a moment's work: the run is in a
/// file, or wants an index and `patient` is not given.
pub fn rows_of(run: &Run, order: &Order, group: &Group, patient: bool) -> Result<Option<Vec<RecordBatch>>> {
    if !run.in_memory() {
        return Ok(None);
    }
    let mut index = run.index();
    if index.is_none() && !run.ordered && run.rows >= SMALL && run.wants_index() {
        if !patient {
            return Ok(None);
        }
        index = run.make_index(|| Index::of(run, order))?;
    }
    let mut found = Vec::new();
    if let Some(index) = index {
        for (block, row) in index.find(group.hash) {
            found.push(run.block(block)?.slice(row, 1));
        }
    } else {
        let blocks = run.blocks().iter().enumerate();
        let near = blocks.filter(|(_, block)| block.hashes.0 <= group.hash && group.hash <= block.hashes.1);
        for (number, _) in near {
            found.push(order.rows_of(group, &run.block(number)?, run.ordered)?);
        }
    }
    // Another group may have the same hash.
    let mut own = Vec::with_capacity(found.len());
    for rows in found.into_iter().filter(|rows| rows.num_rows() > 0) {
        let wanted: BooleanArray = order.is_group(group, &rows)?;
        own.push(if wanted.true_count() == rows.num_rows() { rows } else { filter_record_batch(&rows, &wanted)? });
    }
    own.retain(|rows| rows.num_rows() > 0);
    Ok(Some(own))
}

/// Whether [`finish`] gives what the aggregate does: not where the order of rows matters.
pub fn can_finish(last: &AggregateExec) -> bool {
    last.group_expr().is_single() && last.aggr_expr().iter().all(|function| function.order_bys().is_empty())
}

/// The result row of one group, made of its partial rows (at least one).
pub fn finish(last: &AggregateExec, partial: &[RecordBatch]) -> Result<RecordBatch> {
    let schema = last.schema();
    let mut at = last.group_expr().expr().len();
    let mut columns: Vec<ArrayRef> = (0..at).map(|i| partial[0].column(i).slice(0, 1)).collect();
    for function in last.aggr_expr() {
        let width = function.state_fields()?.len();
        columns.push(merge(function, partial, at..at + width)?);
        at += width;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// The value of a function whose states are in these columns.
fn merge(
    function: &Arc<AggregateFunctionExpr>,
    partial: &[RecordBatch],
    columns: std::ops::Range<usize>,
) -> Result<ArrayRef> {
    if function.groups_accumulator_supported() {
        let mut states = function.create_groups_accumulator()?;
        for rows in partial {
            states.merge_batch(&rows.columns()[columns.clone()], &vec![0; rows.num_rows()], 1)?;
        }
        return Ok(states.evaluate(EmitTo::All)?);
    }
    let mut state = function.create_accumulator()?;
    for rows in partial {
        state.merge_batch(&rows.columns()[columns.clone()])?;
    }
    Ok(state.evaluate()?.to_array()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::ScalarValue;
    use proptest::prelude::*;

    use super::*;
    use crate::rollup::run::Panes;

    fn order() -> Order {
        let fields = vec![
            Field::new("word", DataType::Utf8, true),
            Field::new("number", DataType::Int64, true),
            Field::new("state", DataType::Int64, true),
        ];
        let schema = Arc::new(Schema::new(fields));
        Order { schema, columns: vec![0, 1], pane: None, front: None, block_rows: 7, block_bytes: 1 << 20 }
    }

    fn run(order: &Order, keys: &[Vec<(Option<u8>, i64)>]) -> Run {
        let batch = |keys: &Vec<(Option<u8>, i64)>| {
            let words: StringArray = keys.iter().map(|(word, _)| word.map(|word| format!("w{word}"))).collect();
            let numbers = Int64Array::from_iter_values(keys.iter().map(|(_, number)| *number));
            let states = Int64Array::from_iter_values(0..keys.len() as i64);
            let columns: Vec<ArrayRef> = vec![Arc::new(words), Arc::new(numbers), Arc::new(states)];
            RecordBatch::try_new(Arc::clone(&order.schema), columns).unwrap()
        };
        Run::new(keys.iter().map(batch).collect(), Panes::ALL)
    }

    /// The states of what was found, in any order.
    fn states(found: &[RecordBatch]) -> Vec<i64> {
        let one = |rows: &RecordBatch| {
            rows.column(2).to_data().buffers()[0].typed_data::<i64>()[rows.column(2).to_data().offset()..]
                [..rows.num_rows()]
                .to_vec()
        };
        let mut all: Vec<i64> = found.iter().flat_map(one).collect();
        all.sort_unstable();
        all
    }

    proptest! {
        /// By looking, by halving and by index the same rows are found, and they are those of the group.
        #[test]
        fn all_ways_find_the_same(
            keys in prop::collection::vec(prop::collection::vec((prop::option::of(0u8..5), 0i64..4), 1..30), 1..6),
        ) {
            let order = order();
            let unordered = run(&order, &keys);
            let ordered = order.rewrite(&unordered, None).unwrap().unwrap();
            let index = Index::of(&unordered, &order).unwrap();
            for word in 0..6u8 {
                for number in 0..5i64 {
                    let value = |column: usize| Some(match column {
                        0 => ScalarValue::from(format!("w{word}")),
                        _ => ScalarValue::from(number),
                    });
                    let group = order.group(&value).unwrap().unwrap();
                    let all = keys.iter().flat_map(|keys| keys.iter().enumerate());
                    let mut expected: Vec<i64> =
                        all.filter(|(_, key)| **key == (Some(word), number)).map(|(i, _)| i as i64).collect();
                    expected.sort_unstable();
                    for run in [&unordered, &ordered] {
                        let found = rows_of(run, &order, &group, false).unwrap().unwrap();
                        prop_assert_eq!(&states(&found), &expected);
                    }
                    let found = index.find(group.hash).map(|(block, row)| unordered.block(block).unwrap().slice(row, 1));
                    let found: Vec<RecordBatch> = found.collect();
                    prop_assert_eq!(&states(&found), &expected);
                }
            }
        }
    }

    #[test]
    fn a_large_run_gets_an_index_from_whoever_has_the_time() {
        let order = order();
        let keys: Vec<_> = (0..2 * SMALL).map(|i| (Some((i % 200) as u8), i as i64)).collect();
        let run = run(&order, &[keys]);
        let value = |column: usize| Some(if column == 0 { ScalarValue::from("w7") } else { ScalarValue::from(207i64) });
        let group = order.group(&value).unwrap().unwrap();
        for _ in 1..LOOKS {
            assert_eq!(states(&rows_of(&run, &order, &group, false).unwrap().unwrap()), [207]);
        }
        assert!(rows_of(&run, &order, &group, false).unwrap().is_none(), "it wants an index");
        assert_eq!(states(&rows_of(&run, &order, &group, true).unwrap().unwrap()), [207]);
        assert_eq!(states(&rows_of(&run, &order, &group, false).unwrap().unwrap()), [207], "and has one");
    }
}
