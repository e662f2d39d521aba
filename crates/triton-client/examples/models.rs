//! Prints the models of a Triton server, and how long their requests took.
//!
//! ```text
//! cargo run --example models -- 127.0.0.1:8000
//! ```

use triton_client::{Result, Triton};

fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    let triton = Triton::new(address.as_deref().unwrap_or("127.0.0.1:8000"));
    let statistics = triton.statistics()?;
    println!(
        "{:40} {:>10} {:>12}",
        "model/version", "requests", "mean µs"
    );
    for model in triton.models()? {
        let name = format!("{}/{}", model.model, model.version);
        if !model.ready {
            println!("{name:40} not ready: {}", model.reason);
            continue;
        }
        let number = |field: &str| {
            let path = format!("/inference_stats/success/{field}");
            statistics.get(&name)?.pointer(&path)?.as_u64()
        };
        let count = number("count").unwrap_or_default();
        let mean = number("ns")
            .unwrap_or_default()
            .checked_div(count)
            .map_or_else(|| "-".to_owned(), |ns| (ns / 1000).to_string());
        println!("{name:40} {count:>10} {mean:>12}");
    }
    Ok(())
}
