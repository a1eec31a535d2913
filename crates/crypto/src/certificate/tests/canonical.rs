//! One meaning, one encoding: also inside extensions, whose values a certificate holds as bytes.

use der::asn1::OctetString;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::*;

/// Replaces bytes that stand once in a certificate by as many others.
fn replaced(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..=der.len() - from.len()).filter(|at| der[*at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("stands {} times", places.len()) };
    [&der[..at], to, &der[at + from.len()..]].concat()
}

#[test]
fn an_extensions_value_has_one_encoding() {
    let network = Network::new(30);
    let leaf = network.leaf(Profile::HospitalSigning);
    // Named bits in DER end with the last that is set (X.690 section 11.2.2): a seventh, unset one is another encoding.
    let longer = replaced(&leaf, &[0x03, 0x02, 0x07, 0x80], &[0x03, 0x02, 0x06, 0x80]);
    assert_eq!(lint(&longer, Profile::HospitalSigning, NOW), Err(LintFailure::KeyUsage));
    let root = network.anchor.as_der();
    let longer = replaced(root, &[0x03, 0x02, 0x01, 0x06], &[0x03, 0x02, 0x00, 0x06]);
    assert_eq!(lint(&longer, Profile::Root, NOW), Err(LintFailure::KeyUsage));
}

#[test]
fn extensions_stand_in_one_order() {
    let network = Network::new(32);
    let leaf = network.leaf(Profile::HospitalSigning);
    // The two key identifiers stand side by side: 31 and 33 bytes.
    let at = leaf.windows(7).position(|bytes| bytes == [0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x0e]).unwrap();
    let (first, second) = leaf[at..at + 64].split_at(31);
    let swapped = replaced(&leaf, &leaf[at..at + 64], &[second, first].concat());
    assert_eq!(lint(&swapped, Profile::HospitalSigning, NOW), Err(LintFailure::UnexpectedExtension));
}

#[test]
fn a_time_before_2050_is_written_with_two_digits_of_its_year() {
    let network = Network::new(33);
    let mut leaf = network.leaf(Profile::HospitalSigning);
    let at = leaf.windows(4).position(|bytes| bytes == [0x30, 0x1e, 0x17, 0x0d]).unwrap();
    leaf.splice(at + 2..at + 4, [0x18, 0x0f, b'2', b'0']);
    // The certificate, its content and its validity each became two bytes longer.
    leaf[at + 1] += 2;
    for length in [2, 6] {
        let longer = u16::from_be_bytes([leaf[length], leaf[length + 1]]) + 2;
        leaf[length..length + 2].copy_from_slice(&longer.to_be_bytes());
    }
    assert!(x509_cert::Certificate::from_der(&leaf).is_ok(), "a certificate all the same");
    assert_eq!(lint(&leaf, Profile::HospitalSigning, NOW), Err(LintFailure::Malformed));
}

#[test]
fn a_lists_extensions_are_the_two_in_their_order() {
    let network = Network::new(31);
    let issuer = network.anchor.verify_issuer(&network.issuing, NOW).unwrap();
    let good = CertificateList::<Rfc5280>::from_der(&network.crl_der(&[], 1, NOW)).unwrap();
    let parse = |change: &dyn Fn(&mut CertificateList<Rfc5280>)| {
        let mut list = good.clone();
        change(&mut list);
        let content = list.tbs_cert_list.to_der().unwrap();
        let signature = KeySigner { backend: &network.backend, key: &network.issuing_key }.sign(&content).unwrap();
        let der = encoding::assemble(&content, encoding::ECDSA_SHA256, &signature).unwrap();
        Crl::parse_and_verify(&network.backend, &der, &issuer).map(|crl| crl.number())
    };
    assert_eq!(parse(&|_| {}), Ok(1));
    let swapped = |list: &mut CertificateList<Rfc5280>| list.tbs_cert_list.crl_extensions.as_mut().unwrap().swap(0, 1);
    assert_eq!(parse(&swapped), Err(CrlError::Malformed));
    let with_serial = |list: &mut CertificateList<Rfc5280>| {
        let id = &mut list.tbs_cert_list.crl_extensions.as_mut().unwrap()[0];
        let mut value = AuthorityKeyIdentifier::from_der(id.extn_value.as_bytes()).unwrap();
        value.authority_cert_serial_number = Some(encoding::serial_number(&Serial([0x41; 16])).unwrap());
        id.extn_value = OctetString::new(value.to_der().unwrap()).unwrap();
    };
    assert_eq!(parse(&with_serial), Err(CrlError::Malformed));
    // A list of the first version, and one that says it is signed otherwise.
    assert_eq!(parse(&|list| list.tbs_cert_list.version = x509_cert::Version::V1), Err(CrlError::Malformed));
    let other = encoding::algorithm_identifier(encoding::ECDSA_SHA384);
    assert_eq!(parse(&|list| list.tbs_cert_list.signature = other.clone()), Err(CrlError::Malformed));
    let content = good.tbs_cert_list.to_der().unwrap();
    let signature = KeySigner { backend: &network.backend, key: &network.issuing_key }.sign(&content).unwrap();
    let outside = encoding::assemble(&content, encoding::ECDSA_SHA384, &signature).unwrap();
    let refused = Crl::parse_and_verify(&network.backend, &outside, &issuer).map(|crl| crl.number());
    assert_eq!(refused, Err(CrlError::Malformed));
}
