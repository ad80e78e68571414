//! Reading one group of a rollup without a plan: what a dashboard or an application asks for by key, thousands of times
//! a second. The partial rows of the group are looked up in each run and merged by the aggregates' own accumulators,
//! as `AggregateMode::Final` would; all in memory, so nothing here waits.
//!
//! A run that is ordered finds a group by halving. One that is not is looked through, and once that was done often
//! enough it gets an [`Index`], which costs about as much as those looks did. The same for all windows of a key, which lie
//! together (`slice.rs`).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::run::Run;
use super::slice::{Group, Order};
use crate::error::Result;

/// Runs with fewer rows are looked through each time.
const SMALL: usize = 1024;

/// More rows are not taken one by one.
const MANY: usize = 256;

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

    /// Block and row in it of all rows with a hash in a closed range.
    fn find(&self, (low, high): (u64, u64)) -> impl Iterator<Item = (usize, usize)> {
        let first = self.hashes.partition_point(|hash| *hash < low);
        let found = self.hashes[first..].iter().zip(&self.rows[first..]).take_while(move |(hash, _)| **hash <= high);
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
    // Very many are found faster by looking.
    if let Some(index) = index.filter(|index| index.find(group.hashes).nth(MANY).is_none()) {
        for (block, row) in index.find(group.hashes) {
            // Another group may have the same hash.
            found.push(order.rows_of(group, &run.block(block)?.slice(row, 1), false)?);
        }
    } else {
        for number in group.blocks_of(run) {
            found.push(order.rows_of(group, &run.block(number)?, run.ordered)?);
        }
    }
    found.retain(|rows| rows.num_rows() > 0);
    Ok(Some(found))
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
        let (block_rows, block_bytes) = (7, 1 << 20);
        Order { schema, columns: vec![0, 1], then: vec![], pane: None, front: None, block_rows, block_bytes }
    }

    /// The same, ordered by the numbers within the words.
    fn order_by_word() -> Order {
        Order { columns: vec![0], then: vec![1], ..order() }
    }

    /// The group with these values.
    fn group(order: &Order, word: &str, number: Option<i64>) -> Group {
        let value = |column: usize| match column {
            0 => Some(vec![ScalarValue::from(word)]),
            _ => number.map(|number| vec![ScalarValue::from(number)]),
        };
        let mut groups = order.groups(&value, true).unwrap().unwrap();
        assert_eq!(groups.len(), 1);
        groups.remove(0)
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
            for order in [order(), order_by_word()] {
                let unordered = run(&order, &keys);
                let ordered = order.rewrite(&unordered, None).unwrap().unwrap();
                let index = Index::of(&unordered, &order).unwrap();
                // All numbers of a word lie together where those are what words are ordered by.
                let none = (!order.then.is_empty()).then_some(None);
                let numbers: Vec<Option<i64>> = (0..5).map(Some).chain(none).collect();
                for (word, number) in (0..6u8).flat_map(|word| numbers.iter().map(move |number| (word, *number))) {
                    let group = group(&order, &format!("w{word}"), number);
                    let all = keys.iter().flat_map(|keys| keys.iter().enumerate());
                    let wanted = |key: &(Option<u8>, i64)| key.0 == Some(word) && number.is_none_or(|n| n == key.1);
                    let mut expected: Vec<i64> =
                        all.filter(|(_, key)| wanted(key)).map(|(i, _)| i as i64).collect();
                    expected.sort_unstable();
                    for run in [&unordered, &ordered] {
                        let found = rows_of(run, &order, &group, false).unwrap().unwrap();
                        prop_assert_eq!(&states(&found), &expected);
                    }
                    let found = index.find(group.hashes).map(|(block, row)| unordered.block(block).unwrap().slice(row, 1));
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
        let group = group(&order, "w7", Some(207));
        for _ in 1..LOOKS {
            assert_eq!(states(&rows_of(&run, &order, &group, false).unwrap().unwrap()), [207]);
        }
        assert!(rows_of(&run, &order, &group, false).unwrap().is_none(), "it wants an index");
        assert_eq!(states(&rows_of(&run, &order, &group, true).unwrap().unwrap()), [207]);
        assert_eq!(states(&rows_of(&run, &order, &group, false).unwrap().unwrap()), [207], "and has one");
    }
}
