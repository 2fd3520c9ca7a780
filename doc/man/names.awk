# SPDX-License-Identifier: MIT
# Prints the names under which a manual page is to be found: those of its NAME section.
/^\.Sh / { on = $2 == "NAME" }
on && /^\.Nm / { print $2 }
