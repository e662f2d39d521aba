//! Columns of ours beside NVTabular's.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

/// Whether two numbers are equal within `tolerance`, relative; NaN equals NaN.
pub(crate) fn near(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours.is_nan() && theirs.is_nan())
        || ours == theirs
        || (ours - theirs).abs() <= tolerance * theirs.abs().max(1e-30)
}

/// Compares two columns; missing values may be null in one and NaN in the other. Floats count as equal within `tolerance`, relative, or within `least`.
pub(crate) fn compare(
    name: &str,
    ours: &ArrayRef,
    theirs: &ArrayRef,
    tolerance: f64,
    least: f64,
) -> Result<(), String> {
    if ours.len() != theirs.len() {
        return Err(format!("{name}: {} rows, not {}", ours.len(), theirs.len()));
    }
    if let DataType::List(_) = theirs.data_type() {
        let (ours, theirs) = (ours.as_list::<i32>(), theirs.as_list::<i32>());
        let lengths =
            |lists: &arrow::array::ListArray| lists.offsets().lengths().collect::<Vec<_>>();
        if lengths(ours) != lengths(theirs) {
            return Err(format!("{name}: list lengths differ"));
        }
        return compare(name, ours.values(), theirs.values(), tolerance, least);
    }
    let (ours, theirs) = (&plain(ours), &plain(theirs));
    if ours.data_type() == &DataType::Utf8 && theirs.data_type() == &DataType::Utf8 {
        return if ours == theirs {
            Ok(())
        } else {
            Err(format!("{name}: texts differ"))
        };
    }
    // pandas turns integers with gaps into floats; ours stay integers with nulls.
    let gaps = ours.null_count() > 0 && theirs.data_type() == &DataType::Float64;
    if ours.data_type() != theirs.data_type() && !(gaps && ours.data_type().is_integer()) {
        return Err(format!(
            "{name}: type {}, not {}",
            ours.data_type(),
            theirs.data_type()
        ));
    }
    let tolerance = if theirs.data_type().is_floating() {
        tolerance
    } else {
        0.0
    };
    let numbers = |array: &ArrayRef| -> Vec<f64> {
        let array = cast(array, &DataType::Float64).unwrap();
        let array = array.as_primitive::<Float64Type>();
        array.iter().map(|x| x.unwrap_or(f64::NAN)).collect()
    };
    for (row, (ours, theirs)) in numbers(ours).into_iter().zip(numbers(theirs)).enumerate() {
        if !near(ours, theirs, tolerance) && (ours - theirs).abs().total_cmp(&least).is_gt() {
            return Err(format!("{name}, row {row}: {ours}, not {theirs}"));
        }
    }
    Ok(())
}

/// Texts as arrow's ordinary strings.
fn plain(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8).unwrap(),
        _ => array.clone(),
    }
}
