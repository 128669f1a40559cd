//! What peers may show, and who must believe it: the table that Envoy's validators and our own
//! verifiers are held against.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::certificates::{Authority, Credential, raw_uris, uri};

pub const TRUST_DOMAIN: &str = "cluster.local";
/// Who is expected, as a client and as a server.
pub const EXPECTED: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// Another workload of the same mesh.
pub const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

/// SPIFFE-I2 to I8, I11 and the lengths of I9, as bytes in a certificate.
pub const MALFORMED_IDS: [&str; 27] = [
    "",
    "http://cluster.local/ns/shop/sa/web",
    "spiffe:/cluster.local/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/web",
    "spiffe://",
    "spiffe:///ns/shop/sa/web",
    "spiffe://u@cluster.local/ns/shop/sa/web",
    "spiffe://cluster.local:8/ns/shop/sa/web",
    "spiffe://[::1]/ns/shop/sa/web",
    "SPIFFE://cluster.local/ns/shop/sa/web",
    "spiffe://cluster%2elocal/ns/shop/sa/web",
    "spiffe://clüster.local/ns/shop/sa/web",
    "spiffe://cluster.local/ns/shop/sa/%77eb",
    "spiffe://cluster.local/ns/shop/sa/wéb",
    "spiffe://cluster.local/ns/shop/sa/w b",
    "spiffe://cluster.local/ns/shop/sa/w:b",
    "spiffe://cluster.local/ns/shop/sa/w@b",
    "spiffe://cluster.local/ns/shop/sa/w~b",
    "spiffe://cluster.local/ns/shop/sa/web/",
    "spiffe://cluster.local/ns/shop//sa/web",
    "spiffe://cluster.local/ns/shop/./sa/web",
    "spiffe://cluster.local/ns/shop/x/../sa/web",
    "spiffe://cluster.local/ns/shop/sa/web?x",
    "spiffe://cluster.local/ns/shop/sa/web#x",
    "spiffe://cluster.local/ns/shop/sa/web\0",
    "spiffe://cluster.local/ns/shop/sa/web\0.evil",
    " spiffe://cluster.local/ns/shop/sa/web",
];

/// What our verifiers must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// The peer is [`EXPECTED`].
    Expected,
    /// The peer is somebody else of the mesh: known as a client, which policy then judges; refused
    /// as a server.
    Other,
    Refused,
}

/// What Envoy's validators were measured to do with a client that shows it, in this order: a list
/// of roots with a match on the URI, the SPIFFE validator with a match on the URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envoy {
    pub trusted_ca: bool,
    pub spiffe_validator: bool,
}

const BOTH: Envoy = both(true);
const NEITHER: Envoy = both(false);
/// Where X509-SVID says that the peer MUST be refused, and Envoy does not.
const ONLY_PLAIN: Envoy = Envoy {
    trusted_ca: true,
    spiffe_validator: false,
};
/// It does not look at the extended key usage.
const ONLY_SPIFFE: Envoy = Envoy {
    trusted_ca: false,
    spiffe_validator: true,
};

const fn both(accepts: bool) -> Envoy {
    Envoy {
        trusted_ca: accepts,
        spiffe_validator: accepts,
    }
}

/// Who signs: the mesh, and somebody who is not trusted.
pub struct Signers {
    pub mesh: Authority,
    pub stranger: Authority,
}

/// One line of the table.
pub struct PeerCertificate {
    pub name: String,
    /// Lines of the SPIFFE checklist that it is a case of.
    pub lines: &'static [&'static str],
    pub ours: Ours,
    pub envoy: Envoy,
    make: Box<dyn Fn(&Signers) -> Credential>,
}

impl PeerCertificate {
    pub fn make(&self, signers: &Signers) -> Credential {
        (self.make)(signers)
    }
}

/// The whole table.
pub fn table() -> Vec<PeerCertificate> {
    let mut table = names();
    table.extend(malformed_names());
    table.extend(rights());
    table.extend(times());
    table.extend(issuers());
    table.extend(path_lengths());
    table
}

/// A leaf of the mesh's authority.
fn leaf(
    lines: &'static [&'static str],
    name: &str,
    ours: Ours,
    envoy: Envoy,
    change: impl Fn(&mut CertificateParams) + 'static,
) -> PeerCertificate {
    chain(lines, name, ours, envoy, move |signers| {
        signers.mesh.leaf(EXPECTED, &change)
    })
}

fn chain(
    lines: &'static [&'static str],
    name: &str,
    ours: Ours,
    envoy: Envoy,
    make: impl Fn(&Signers) -> Credential + 'static,
) -> PeerCertificate {
    PeerCertificate {
        name: name.to_owned(),
        lines,
        ours,
        envoy,
        make: Box::new(make),
    }
}

fn uris(list: &'static [&'static str]) -> impl Fn(&mut CertificateParams) + 'static {
    move |params| params.subject_alt_names = list.iter().map(|text| uri(text)).collect()
}

#[rustfmt::skip]
fn names() -> Vec<PeerCertificate> {
    use Ours::{Expected, Other, Refused};
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    vec![
        leaf(&["SPIFFE-V1", "SPIFFE-I1"], "the right URI", Expected, BOTH, |_| ()),
        leaf(&["SPIFFE-I10"], "another URI", Other, NEITHER, uris(&[OTHER])),
        leaf(&["SPIFFE-I10"], "the right URI but for the case of its path", Other, NEITHER,
            uris(&["spiffe://cluster.local/ns/shop/sa/Web"])),
        leaf(&["SPIFFE-I9"], "an ID of the greatest length", Other, NEITHER, |p| {
            let length = 2048 - "spiffe://cluster.local/".len();
            p.subject_alt_names = vec![uri(&format!("spiffe://cluster.local/{}", "x".repeat(length)))];
        }),
        leaf(&["SPIFFE-V5"], "no name at all", Refused, NEITHER, uris(&[])),
        leaf(&["SPIFFE-V5"], "a DNS name only", Refused, NEITHER,
            move |p| p.subject_alt_names = vec![dns("web.shop")]),
        leaf(&["SPIFFE-V6"], "two URIs, the right one first", Refused, BOTH, uris(&[EXPECTED, OTHER])),
        leaf(&["SPIFFE-V6"], "two URIs, the right one last", Refused, BOTH, uris(&[OTHER, EXPECTED])),
        leaf(&["SPIFFE-V6"], "the right URI twice", Refused, BOTH, uris(&[EXPECTED, EXPECTED])),
        leaf(&["SPIFFE-V6"], "the right URI and then a web address", Refused, BOTH,
            uris(&[EXPECTED, "https://cluster.local/ns/shop/sa/web"])),
        leaf(&["SPIFFE-V6"], "a web address and then the right URI", Refused, ONLY_PLAIN,
            uris(&["https://cluster.local/ns/shop/sa/web", EXPECTED])),
        leaf(&["SPIFFE-V7"], "a web address", Refused, NEITHER,
            uris(&["https://cluster.local/ns/shop/sa/web"])),
        leaf(&["SPIFFE-V9", "SPIFFE-I5"], "the trust domain in upper case", Refused, NEITHER,
            uris(&["spiffe://CLUSTER.LOCAL/ns/shop/sa/web"])),
        leaf(&["SPIFFE-V8", "SPIFFE-I11"], "a trust domain and no path", Refused, NEITHER,
            uris(&["spiffe://cluster.local"])),
        leaf(&["SPIFFE-V8", "SPIFFE-I7"], "the empty path", Refused, NEITHER, uris(&["spiffe://cluster.local/"])),
        leaf(&["SPIFFE-V20"], "another URI, the right one as common name", Other, NEITHER, |p| {
            p.subject_alt_names = vec![uri(OTHER)];
            p.distinguished_name.push(DnType::CommonName, EXPECTED);
        }),
        leaf(&["SPIFFE-V20"], "another URI, and a DNS name that looks right", Other, NEITHER,
            move |p| p.subject_alt_names = vec![uri(OTHER), dns("web.shop")]),
        leaf(&["SPIFFE-L1"], "the right URI and a DNS name", Expected, BOTH,
            move |p| p.subject_alt_names = vec![uri(EXPECTED), dns("web.shop")]),
        leaf(&["SPIFFE-L2"], "a subject, and so names that are not critical", Expected, BOTH, |p| {
            p.distinguished_name.push(DnType::CommonName, "web");
        }),
    ]
}

fn malformed_names() -> impl Iterator<Item = PeerCertificate> {
    let longest = format!("spiffe://cluster.local/{}", "x".repeat(2049 - 23));
    let long_domain = format!("spiffe://{}/ns/shop/sa/web", "a".repeat(256));
    let all = MALFORMED_IDS.into_iter().map(str::to_owned);
    all.chain([longest, long_domain]).map(|text| {
        let shown: String = text.chars().take(60).collect();
        let name = format!("the malformed ID {shown:?}");
        leaf(
            &["SPIFFE-V9"],
            &name,
            Ours::Refused,
            NEITHER,
            move |params| {
                params.subject_alt_names.clear();
                params.custom_extensions = vec![raw_uris(&[&text])];
            },
        )
    })
}

#[rustfmt::skip]
fn rights() -> Vec<PeerCertificate> {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    use KeyUsagePurpose::{CrlSign, KeyAgreement, KeyCertSign};
    use Ours::{Expected, Refused};
    vec![
        leaf(&["SPIFFE-V2", "SPIFFE-A7"], "a CA", Refused, ONLY_PLAIN,
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        leaf(&["SPIFFE-V2", "SPIFFE-A7"], "a CA that may sign certificates", Refused, ONLY_PLAIN, |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            p.key_usages.push(KeyCertSign);
        }),
        leaf(&["SPIFFE-V2", "SPIFFE-A7"], "a CA that may sign nothing but certificates", Refused, NEITHER, |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            p.key_usages = vec![KeyCertSign];
        }),
        leaf(&["SPIFFE-V3"], "a key that may sign certificates", Refused, ONLY_PLAIN,
            |p| p.key_usages.push(KeyCertSign)),
        leaf(&["SPIFFE-V3"], "a key that may sign CRLs", Refused, ONLY_PLAIN,
            |p| p.key_usages.push(CrlSign)),
        leaf(&["SPIFFE-V4"], "no key usage", Refused, ONLY_PLAIN, |p| p.key_usages.clear()),
        leaf(&["SPIFFE-V4"], "a key that may not sign handshakes", Refused, NEITHER,
            |p| p.key_usages = vec![KeyAgreement]),
        leaf(&["SPIFFE-V18"], "no extended key usage", Expected, BOTH, |p| p.extended_key_usages.clear()),
        leaf(&["SPIFFE-V18"], "for servers only", Refused, ONLY_SPIFFE,
            |p| p.extended_key_usages = vec![ServerAuth]),
        leaf(&["SPIFFE-V18"], "for clients only", Refused, BOTH,
            |p| p.extended_key_usages = vec![ClientAuth]),
        leaf(&["SPIFFE-V18"], "for signing code", Refused, ONLY_SPIFFE,
            |p| p.extended_key_usages = vec![CodeSigning]),
        leaf(&["SPIFFE-V19"], "a critical extension that nobody knows", Refused, NEITHER, |p| {
            let mut unknown = rcgen::CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
            unknown.set_criticality(true);
            p.custom_extensions = vec![unknown];
        }),
        leaf(&["SPIFFE-L3"], "no basic constraints", Expected, BOTH, |p| p.is_ca = IsCa::NoCa),
    ]
}

#[rustfmt::skip]
fn times() -> Vec<PeerCertificate> {
    use Ours::Refused;
    vec![
        leaf(&["SPIFFE-V10"], "expired", Refused, NEITHER,
            |p| p.not_after = date_time_ymd(2020, 1, 1)),
        leaf(&["SPIFFE-V10"], "not valid yet", Refused, NEITHER,
            |p| p.not_before = date_time_ymd(2400, 1, 1)),
    ]
}

#[rustfmt::skip]
fn issuers() -> Vec<PeerCertificate> {
    use Ours::{Expected, Refused};
    let foreign = "spiffe://other.mesh/ns/shop/sa/web";
    vec![
        chain(&["SPIFFE-V11", "SPIFFE-V12"], "signed by another root", Refused, NEITHER,
            |s| s.stranger.leaf(EXPECTED, |_| ())),
        chain(&["SPIFFE-V11"], "signed by another root, which comes with it", Refused, NEITHER,
            |s| s.stranger.leaf(EXPECTED, |_| ()).under(&[&s.stranger])),
        chain(&["SPIFFE-V11"], "signed in our root's name with another key", Refused, NEITHER,
            |s| s.mesh.impostor().leaf(EXPECTED, |_| ())),
        chain(&["SPIFFE-V11"], "signed by itself", Refused, NEITHER, |_| Credential::self_signed(EXPECTED)),
        chain(&["SPIFFE-V12"], "another trust domain's ID, signed by our root", Refused, NEITHER,
            move |s| s.mesh.leaf(foreign, |_| ())),
        chain(&["SPIFFE-V13"], "its issuer is missing", Refused, NEITHER,
            |s| s.mesh.intermediate(|_| ()).leaf(EXPECTED, |_| ())),
        chain(&["SPIFFE-V13"], "with its issuer", Expected, BOTH, |s| {
            let issuer = s.mesh.intermediate(|_| ());
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
        chain(&["SPIFFE-V13"], "with its issuers, in the wrong order", Expected, BOTH, |s| {
            let upper = s.mesh.intermediate(|_| ());
            let lower = upper.intermediate(|_| ());
            lower.leaf(EXPECTED, |_| ()).under(&[&upper, &lower])
        }),
        chain(&["SPIFFE-V14"], "its issuer is not a CA", Refused, NEITHER, |s| {
            let issuer = s.mesh.intermediate(|p| p.is_ca = IsCa::ExplicitNoCa);
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
        chain(&["SPIFFE-V14"], "its issuer says nothing of being a CA", Refused, NEITHER, |s| {
            let issuer = s.mesh.intermediate(|p| p.is_ca = IsCa::NoCa);
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
        chain(&["SPIFFE-V14"], "its issuer may not sign certificates", Refused, NEITHER, |s| {
            let may_not = |p: &mut CertificateParams| {
                p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            };
            let issuer = s.mesh.intermediate(may_not);
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
        chain(&["SPIFFE-V14"], "its issuer is another leaf", Refused, NEITHER, |s| {
            let issuer = s.mesh.intermediate(|p| {
                p.distinguished_name = DistinguishedName::new();
                p.subject_alt_names = vec![uri(OTHER)];
                p.is_ca = IsCa::ExplicitNoCa;
                p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            });
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
        chain(&["SPIFFE-V10"], "its issuer has expired", Refused, NEITHER, |s| {
            let issuer = s.mesh.intermediate(|p| p.not_after = date_time_ymd(2020, 1, 1));
            issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
        }),
    ]
}

#[rustfmt::skip]
fn path_lengths() -> Vec<PeerCertificate> {
    let length = |length| move |p: &mut CertificateParams| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
    };
    vec![
        chain(&["SPIFFE-V15"], "one authority below one that allows none", Ours::Refused, NEITHER,
            move |s| {
                let upper = s.mesh.intermediate(length(0));
                let lower = upper.intermediate(|_| ());
                lower.leaf(EXPECTED, |_| ()).under(&[&lower, &upper])
            }),
        chain(&["SPIFFE-V15"], "no authority below one that allows none", Ours::Expected, BOTH,
            move |s| {
                let issuer = s.mesh.intermediate(length(0));
                issuer.leaf(EXPECTED, |_| ()).under(&[&issuer])
            }),
        chain(&["SPIFFE-V15"], "as many authorities as the upper one allows", Ours::Expected, BOTH,
            move |s| {
                let upper = s.mesh.intermediate(length(1));
                let lower = upper.intermediate(length(0));
                lower.leaf(EXPECTED, |_| ()).under(&[&lower, &upper])
            }),
    ]
}
