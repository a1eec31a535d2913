//! Seeds from `vectors/`: a sample of every message, parcel and sealed part, and of what is refused.

use serde_json::Value;
use waybill_fuzz::targets::messages::TYPES;

use crate::{Seeds, folder};

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder("../vectors").join(name)).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub fn add(seeds: &mut Seeds) {
    let messages = read("protocol-messages.json");
    let messages = messages["messages"].as_array().unwrap();
    assert_eq!(messages.len(), TYPES.len(), "a sample of every message");
    for message in messages {
        let typ = message["typ"].as_str().unwrap();
        let which = TYPES.iter().position(|known| *known == typ).unwrap();
        let name = format!("ok-{typ}");
        seeds.add_of("message", &name, which, &bytes(&message["payload"]));
        seeds.add("signed", &name, bytes(&message["signed"]));
    }
    let negative = read("protocol-negative.json");
    let cases = negative["cases"].as_array().unwrap().iter().enumerate();
    for (number, case) in
        cases.filter(|(_, case)| ["Registration", "Refusal"].contains(&case["message"].as_str().unwrap()))
    {
        seeds.add("signed", &format!("no-{number}-{}", case["code"].as_str().unwrap()), bytes(&case["bytes"]));
    }
    for parcel in read("protocol-parcels.json")["parcels"].as_array().unwrap() {
        let name = format!("ok-{}-sample", parcel["name"].as_str().unwrap());
        seeds.add("parcel", &name, bytes(&parcel["parcel"]));
    }
    for (which, sealed) in read("protocol-sealed.json")["sealed"].as_array().unwrap().iter().enumerate() {
        let name = format!("ok-{}", sealed["label"].as_str().unwrap().replace("waybill/1 ", ""));
        seeds.add_of("sealed", &name, which, &bytes(&sealed["sealed"]));
    }
}
