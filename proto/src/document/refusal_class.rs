//! The kinds of mistake that documents are refused for.

use std::fmt;

/// What kind of mistake an error is: the name in `error[name]`, for programs and for searching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalClass {
    /// The file can't be read from where it lies.
    UnreadableFile,
    /// The file has more bytes than any file of documents.
    TooLarge,
    /// The file has more documents than any file.
    TooManyDocuments,
    /// There are bytes that are not UTF-8.
    NotUtf8,
    /// It is not YAML; nothing behind the mistake is read.
    NotYaml,
    /// A key stands twice in one map; one of the two would be lost.
    DuplicateKey,
    /// `<<` merges another map into this one, where no reader looks for it.
    MergeKey,
    /// A tag (`!name`) that says how to read a value.
    YamlTag,
    /// Too deep, too long, or too many aliases.
    TooComplex,
    /// `apiVersion` is of something else.
    UnknownApiVersion,
    /// `apiVersion` is Istio's, and documents of Istio are not taken as they are.
    IstioApiVersion,
    /// `kind` is no kind of document.
    UnknownKind,
    /// A name or namespace that nothing can have.
    BadName,
    /// Something that has to be there is not.
    MissingField,
    /// A field that does not exist.
    UnknownField,
    /// A field of Istio that looks into requests.
    Layer7Field,
    /// `action: CUSTOM`, which asks an external authorizer about requests.
    CustomAction,
    /// A text that is none of those which can stand there.
    UnknownValue,
    /// A list where a text belongs, and so on.
    WrongType,
    /// A list without entries: everybody or nobody is nothing to guess.
    EmptyList,
    /// A map without fields, where that would match everything.
    EmptyEntry,
    /// A text without characters, which matches nobody.
    EmptyValue,
    /// More entries than can be meant.
    TooManyEntries,
    /// There are more mistakes than are told of.
    TooManyErrors,
    /// Two statements that can't both hold.
    Contradiction,
    /// A star that is not at one end of a value.
    StarInTheMiddle,
    /// No principal or SPIFFE ID.
    BadPrincipal,
    /// No namespace.
    BadNamespace,
    /// No service account.
    BadServiceAccount,
    /// No trust domain.
    BadTrustDomain,
    /// No address block.
    BadIpBlock,
    /// No address, or one that nobody can have.
    BadAddress,
    /// No port.
    BadPort,
    /// No serial number of a certificate.
    BadSerial,
    /// No time.
    BadTime,
    /// `portLevelMtls` for everybody: ports mean something for one workload only.
    PortsWithoutSelector,
    /// A dry run of what can't be tried by one, such as `defaultAction`.
    NoDryRun,
    /// The policy does not do what its own tests expect.
    TestsFailed,
    /// The namespace may not evict whom the document names.
    EvictionNotPermitted,
    /// The namespace may not claim the address.
    AddressNotClaimable,
    /// A port stands twice in one workload or service.
    DuplicatePort,
    /// Two documents of one kind have the same name.
    DefinedTwice,
}

impl RefusalClass {
    pub const ALL: [Self; 42] = [
        Self::UnreadableFile,
        Self::TooLarge,
        Self::TooManyDocuments,
        Self::NotUtf8,
        Self::NotYaml,
        Self::DuplicateKey,
        Self::MergeKey,
        Self::YamlTag,
        Self::TooComplex,
        Self::UnknownApiVersion,
        Self::IstioApiVersion,
        Self::UnknownKind,
        Self::BadName,
        Self::MissingField,
        Self::UnknownField,
        Self::Layer7Field,
        Self::CustomAction,
        Self::UnknownValue,
        Self::WrongType,
        Self::EmptyList,
        Self::EmptyEntry,
        Self::EmptyValue,
        Self::TooManyEntries,
        Self::TooManyErrors,
        Self::Contradiction,
        Self::StarInTheMiddle,
        Self::BadPrincipal,
        Self::BadNamespace,
        Self::BadServiceAccount,
        Self::BadTrustDomain,
        Self::BadIpBlock,
        Self::BadAddress,
        Self::BadPort,
        Self::BadSerial,
        Self::BadTime,
        Self::PortsWithoutSelector,
        Self::NoDryRun,
        Self::TestsFailed,
        Self::EvictionNotPermitted,
        Self::AddressNotClaimable,
        Self::DuplicatePort,
        Self::DefinedTwice,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnreadableFile => "unreadable-file",
            Self::TooLarge => "too-large",
            Self::TooManyDocuments => "too-many-documents",
            Self::NotUtf8 => "not-utf8",
            Self::NotYaml => "not-yaml",
            Self::DuplicateKey => "duplicate-key",
            Self::MergeKey => "merge-key",
            Self::YamlTag => "yaml-tag",
            Self::TooComplex => "too-complex",
            Self::UnknownApiVersion => "unknown-api-version",
            Self::IstioApiVersion => "istio-api-version",
            Self::UnknownKind => "unknown-kind",
            Self::BadName => "bad-name",
            Self::MissingField => "missing-field",
            Self::UnknownField => "unknown-field",
            Self::Layer7Field => "layer-7-field",
            Self::CustomAction => "custom-action",
            Self::UnknownValue => "unknown-value",
            Self::WrongType => "wrong-type",
            Self::EmptyList => "empty-list",
            Self::EmptyEntry => "empty-entry",
            Self::EmptyValue => "empty-value",
            Self::TooManyEntries => "too-many-entries",
            Self::TooManyErrors => "too-many-errors",
            Self::Contradiction => "contradiction",
            Self::StarInTheMiddle => "star-in-the-middle",
            Self::BadPrincipal => "bad-principal",
            Self::BadNamespace => "bad-namespace",
            Self::BadServiceAccount => "bad-service-account",
            Self::BadTrustDomain => "bad-trust-domain",
            Self::BadIpBlock => "bad-ip-block",
            Self::BadAddress => "bad-address",
            Self::BadPort => "bad-port",
            Self::BadSerial => "bad-serial",
            Self::BadTime => "bad-time",
            Self::PortsWithoutSelector => "ports-without-selector",
            Self::NoDryRun => "no-dry-run",
            Self::TestsFailed => "tests-failed",
            Self::EvictionNotPermitted => "eviction-not-permitted",
            Self::AddressNotClaimable => "address-not-claimable",
            Self::DuplicatePort => "duplicate-port",
            Self::DefinedTwice => "defined-twice",
        }
    }
}

impl fmt::Display for RefusalClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
