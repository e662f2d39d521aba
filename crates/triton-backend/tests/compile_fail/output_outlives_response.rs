//! An output buffer cannot be written after the response is sent.

use triton_backend::Batch;

fn late(batch: &Batch<'_>) {
    let mut kept: Option<&mut [f32]> = None;
    batch.respond(0, |_, response| {
        kept = response.output::<f32>("y", &[1])?;
        Ok(())
    });
    kept.unwrap()[0] = 1.0;
}

fn main() {}
