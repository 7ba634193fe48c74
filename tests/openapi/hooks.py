"""The formats of the description, which schemathesis does not know."""

import schemathesis
from hypothesis import strategies as st

# Of the letters that a name may have, only some: which others are allowed is more than a pattern can say.
schemathesis.openapi.format("roomcast-name", st.from_regex(r"\A[A-Za-z0-9_.:@~+#=/-]{1,40}\Z"))
schemathesis.openapi.format(
    "roomcast-network",
    st.one_of(st.ip_addresses().map(str), st.ip_addresses(v=4).map(lambda address: f"{address}/32")),
)
