//! `pg_sleep`, `pg_sleep_for` and `pg_sleep_until` (PostgreSQL manual, "Delaying Execution"): what tries out a timeout or a
//! cancel calls them. They wait without holding a thread, and end with their query.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Float64Array, StringArray};
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::time::{Clock, UTC};

/// A longer one is a mistake, and would not fit a clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The functions, each with the type of its argument.
pub fn functions() -> impl Iterator<Item = ScalarUDF> {
    let forms = [
        ("pg_sleep", DataType::Float64),
        ("pg_sleep_for", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("pg_sleep_until", DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))),
    ];
    forms.into_iter().map(|(name, argument)| {
        let signature = Signature::exact(vec![argument], Volatility::Volatile);
        AsyncScalarUDF::new(Arc::new(Sleep { name, signature })).into_scalar_udf()
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// PostgreSQL's is void, which is sent as an empty text.
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::NotImplemented(format!("{} is not supported here", self.name)))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    /// One row after the other.
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        let seconds: Float64Array = match values[0].data_type() {
            DataType::Float64 => values[0].as_primitive::<Float64Type>().clone(),
            DataType::Interval(_) => values[0].as_primitive::<IntervalMonthDayNanoType>().unary(|interval| {
                let days = f64::from(interval.months) * 30.0 + f64::from(interval.days);
                days * 86_400.0 + interval.nanoseconds as f64 / 1e9
            }),
            _ => {
                let now = Clock::system().now();
                values[0].as_primitive::<TimestampMicrosecondType>().unary(|until| (until - now) as f64 / 1e6)
            }
        };
        let nothing = |row: usize| seconds.is_valid(row).then_some("");
        for seconds in seconds.iter().flatten().filter(|seconds| *seconds > 0.0) {
            tokio::time::sleep(Duration::try_from_secs_f64(seconds).map_or(LONGEST, |time| time.min(LONGEST))).await;
        }
        // As many as there are rows, or one for an argument that is the same for all of them.
        let rows =
            if matches!(arguments.args[0], ColumnarValue::Scalar(_)) { arguments.number_rows } else { seconds.len() };
        Ok(ColumnarValue::Array(Arc::new(
            (0..rows).map(|row| nothing(row.min(seconds.len() - 1))).collect::<StringArray>(),
        )))
    }
}
