//! Reading inputs: types, bounds, buffers.

use std::borrow::Cow;

use half::{bf16, f16};
use triton_backend::{DataType, Element, Error, Tensor};
use triton_rs_sys as sys;
use triton_testing::fake::{Config, Input, Memory, Request};

use super::scripted::execute;

/// Passes the input `x`, declared as `data_type`, to `read`; returns its error message if it fails.
fn read(
    data_type: &str,
    input: Input,
    mut read: impl FnMut(Tensor<'_>) -> Result<(), Error> + 'static,
) -> Result<(), String> {
    let config = Config::new().input("x", data_type, &[-1]);
    let report = execute(config, [Request::new().input(input)], move |batch| {
        batch.respond_each(|request, _| read(request.input("x")?));
        Ok(())
    });
    report
        .answer(0)
        .map(drop)
        .map_err(|failure| failure.message.clone())
}

fn expect<T: Element + PartialEq + std::fmt::Debug>(
    input: Input,
    elements: &[T],
    borrowed: bool,
) -> Result<(), String> {
    let elements = elements.to_vec();
    read(&format!("TYPE_{}", T::DATA_TYPE), input, move |tensor| {
        let slice = tensor.as_slice::<T>()?;
        assert_eq!(*slice, *elements);
        assert_eq!(matches!(slice, Cow::Borrowed(_)), borrowed);
        assert_eq!(tensor.data_type(), T::DATA_TYPE);
        assert_eq!((tensor.len(), tensor.name()), (elements.len(), "x"));
        Ok(())
    })
}

/// One aligned buffer is borrowed; several buffers or unaligned ones are gathered. BOOLs are always copied, see `shared`.
fn all_layouts<T>(elements: [T; 3])
where
    T: Element + PartialEq + std::fmt::Debug + triton_testing::fake::Element,
{
    let input = || Input::new("x", &[3], &elements);
    let size = size_of::<T>();
    let borrowed = <T as Element>::DATA_TYPE != DataType::Bool;
    expect(input(), &elements, borrowed).unwrap();
    expect(input().memory(Memory::Pinned), &elements, borrowed).unwrap();
    expect(input().unaligned(), &elements, borrowed && size == 1).unwrap();
    // Cut inside an element, and with an empty buffer between.
    let cut = size + size.div_ceil(2);
    expect(input().split(&[cut, cut]), &elements, false).unwrap();
}

#[test]
fn every_type_in_every_layout() {
    all_layouts([1u8, 0, 255]);
    all_layouts([1u16, 0, u16::MAX]);
    all_layouts([1u32, 0, u32::MAX]);
    all_layouts([1u64, 0, u64::MAX]);
    all_layouts([i8::MIN, -1, i8::MAX]);
    all_layouts([i16::MIN, -1, i16::MAX]);
    all_layouts([i32::MIN, -1, i32::MAX]);
    all_layouts([i64::MIN, -1, i64::MAX]);
    all_layouts([f32::INFINITY, -0.5, f32::MIN]);
    all_layouts([f64::INFINITY, -0.5, f64::MIN]);
    all_layouts([true, false, true]);
    let bytes = |bits: [u16; 2]| {
        bits.iter()
            .flat_map(|b| b.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let half = [f16::from_f32(1.5), f16::NEG_INFINITY];
    let input = Input::raw(
        "x",
        sys::TRITONSERVER_TYPE_FP16,
        &[2],
        bytes(half.map(f16::to_bits)),
    );
    expect(input, &half, true).unwrap();
    let brain = [bf16::from_f32(1.5), bf16::NEG_INFINITY];
    let input = Input::raw(
        "x",
        sys::TRITONSERVER_TYPE_BF16,
        &[2],
        bytes(brain.map(bf16::to_bits)),
    );
    expect(input, &brain, true).unwrap();
}

#[test]
fn an_empty_tensor_is_an_empty_slice() {
    expect::<i32>(Input::new::<i32>("x", &[0], &[]), &[], true).unwrap();
    expect::<i64>(Input::new::<i64>("x", &[0, 7], &[]), &[], true).unwrap();
    // A tensor of rank 0 has one element.
    expect(Input::new("x", &[], &[5i32]), &[5], true).unwrap();
}

#[test]
fn a_wrong_type_names_both_types() {
    let message = read("TYPE_INT32", Input::new("x", &[1], &[1i64]), |x| {
        x.vector::<i32>().map(drop)
    });
    assert_eq!(
        message,
        Err("model 'm': tensor 'x' is INT64; accepted: INT32".to_owned())
    );
    let message = read("TYPE_STRING", Input::new("x", &[1], &[1i64]), |x| {
        x.strings().map(drop)
    });
    assert_eq!(
        message,
        Err("model 'm': tensor 'x' is INT64; accepted: BYTES".to_owned())
    );
}

#[test]
fn a_wrong_rank_names_the_shape() {
    let message = read("TYPE_INT32", Input::new("x", &[1, 2], &[1, 2]), |x| {
        x.vector::<i32>().map(drop)
    });
    assert_eq!(
        message,
        Err("model 'm': tensor 'x' has shape [1, 2]; accepted: 1 dimension(s)".to_owned())
    );
    let message = read("TYPE_INT32", Input::new("x", &[2], &[1, 2]), |x| {
        x.rows::<i32>().map(drop)
    });
    assert!(message.unwrap_err().contains("accepted: 2 dimension(s)"));
}

#[test]
fn the_byte_size_must_match_the_shape() {
    let int32 = |shape: &[i64], bytes: usize| {
        let input = Input::raw("x", sys::TRITONSERVER_TYPE_INT32, shape, vec![0; bytes]);
        read("TYPE_INT32", input, |x| x.as_slice::<i32>().map(drop)).unwrap_err()
    };
    assert_eq!(
        int32(&[3], 8),
        "model 'm': tensor 'x' holds 8 bytes; INT32 of shape [3] takes 12 bytes"
    );
    assert!(int32(&[1], 5).contains("holds 5 bytes"));
    assert!(int32(&[0], 4).contains("holds 4 bytes"));
    assert!(int32(&[-1], 4).contains("impossible shape [-1]"));
    assert!(int32(&[i64::MAX, 3], 4).contains("impossible shape"));
    // The element count fits, its bytes do not.
    assert!(int32(&[i64::MAX], 4).contains("holds 4 bytes"));
    // Overflow to a product that would match.
    assert!(int32(&[1 << 32, 1 << 32], 0).contains("impossible shape"));
}

#[test]
fn a_bool_is_zero_or_one() {
    let input = Input::raw("x", sys::TRITONSERVER_TYPE_BOOL, &[3], vec![1, 0, 2]);
    for input in [input.clone(), input.split(&[1])] {
        let message = read("TYPE_BOOL", input, |x| x.as_slice::<bool>().map(drop));
        assert_eq!(
            message,
            Err("model 'm': tensor 'x' holds 2 at element 2; accepted: 0 or 1".to_owned())
        );
    }
}

#[test]
fn strings_are_read_and_bounded() {
    let strings = ["", "a", "snow \u{2744}"];
    let input = Input::strings("x", &[3], &strings);
    for input in [input.clone(), input.split(&[3, 9])] {
        read("TYPE_STRING", input, move |x| {
            let read = x.strings()?;
            assert_eq!(read.len(), 3);
            assert!(!read.is_empty());
            assert!(read.iter().eq(strings.map(str::as_bytes)));
            assert_eq!(read.iter().size_hint().0, 3);
            Ok(())
        })
        .unwrap();
    }
    let bytes = |shape: &[i64], bytes: Vec<u8>| {
        let input = Input::raw("x", sys::TRITONSERVER_TYPE_BYTES, shape, bytes);
        read("TYPE_STRING", input, |x| x.strings().map(drop)).unwrap_err()
    };
    assert!(
        bytes(&[1], vec![9, 0, 0, 0, b'a'])
            .contains("element 0 reaches beyond the tensor's 5 bytes")
    );
    assert!(bytes(&[1], vec![1, 0]).contains("element 0 reaches beyond"));
    assert!(bytes(&[1], vec![255; 8]).contains("element 0 reaches beyond"));
    assert!(bytes(&[2], vec![0; 4]).contains("holds 1 BYTES elements; shape [2] takes 2"));
    assert!(bytes(&[0], vec![0; 4]).contains("holds 1 BYTES elements"));
    // The shape claims more elements than memory can hold; nothing is reserved.
    assert!(bytes(&[i64::MAX], vec![0; 4]).contains("holds 1 BYTES elements"));
}

#[test]
fn arrays_have_the_tensors_shape() {
    let input = Input::new("x", &[2, 3], &[1, 2, 3, 4, 5, 6]);
    for (input, borrowed) in [(input.clone(), true), (input.split(&[4]), false)] {
        read("TYPE_INT32", input, move |x| {
            let view = x.view::<i32>()?;
            assert_eq!(view.shape(), [2, 3]);
            assert_eq!(view.is_view(), borrowed);
            let rows = x.rows::<i32>()?;
            assert_eq!((rows[[1, 0]], rows.nrows()), (4, 2));
            assert_eq!(rows.is_view(), borrowed);
            assert_eq!(x.raw()?.len(), 24);
            Ok(())
        })
        .unwrap();
    }
    read("TYPE_INT32", Input::new("x", &[2], &[1, 2]), |x| {
        assert_eq!(x.array::<i32>()?.sum(), 3);
        Ok(())
    })
    .unwrap();
}

#[test]
fn gpu_memory_is_never_read_as_host_memory() {
    let input = Input::new("x", &[2], &[1, 2]).memory(Memory::Gpu);
    let result = read("TYPE_INT32", input, |x| {
        // On a machine with a GPU the copy fails for another reason: the address is the host's.
        let error = x.as_slice::<i32>().expect_err("not read");
        assert!(error.message().starts_with("tensor 'x': "), "{error}");
        assert!(x.raw().is_err());
        Err(error)
    });
    assert!(result.unwrap_err().contains("GPU 0"));
}

#[test]
fn optional_inputs_may_be_absent() {
    let config = Config::new()
        .optional_input("a", "TYPE_INT32", &[-1])
        .optional_input("b", "TYPE_INT32", &[-1]);
    let request = Request::new().input(Input::new("b", &[1], &[7]));
    let report = execute(config, [request], |batch| {
        batch.respond_each(|request, _| {
            assert!(request.optional_input("a")?.is_none());
            assert!(request.input_at(0)?.is_none());
            let b = request.optional_input("b")?.expect("given");
            assert_eq!(*b.vector::<i32>()?, [7]);
            let names: Vec<&str> = request
                .inputs()
                .map(|x| Ok(x?.name()))
                .collect::<Result<_, Error>>()?;
            assert_eq!(names, ["b"]);
            assert!(request.input_at(2).is_err());
            let error = request.input("c").unwrap_err();
            assert!(error.message().contains("declares: 'a', 'b'"), "{error}");
            let x = request.input_at(1)?.expect("given");
            assert_eq!(x.data_type(), DataType::Int32);
            Ok(())
        });
        Ok(())
    });
    report.success(0);
}
