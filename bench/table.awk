# SPDX-License-Identifier: MIT
# From lines "PROGRAM WORK NS [BYTES]" to the table, the JSON and the picture; see bench/run.

function median(key, count, i, j, t) {
  count = n[key]
  for (i = 1; i <= count; ++i) sorted[i] = figure[key, i]
  for (i = 2; i <= count; ++i)
    for (j = i; j > 1 && sorted[j - 1] > sorted[j]; --j) { t = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = t }
  return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}

function have(key) { return key in n }

# A target: one median against another, or against a number when `other` is one.
function target(text, key, other, limit, ratio) {
  if (!have(key) || (other !~ /^[0-9.]+$/ && !have(other))) return
  ratio = m[key] / (other ~ /^[0-9.]+$/ ? other : m[other])
  printf "%-78s %8.2f  <= %-6s %s\n", text, ratio, limit, ratio <= limit ? "met" : "MISSED"
  if (ratio > limit) missed++
}

function bar(y, label, ns, longest, width) {
  width = 20 + 560 * log(1 + ns) / log(1 + longest)
  printf "<text x=\"8\" y=\"%d\">%s</text><rect x=\"190\" y=\"%d\" width=\"%.0f\" height=\"14\" fill=\"%s\"/><text x=\"%.0f\" y=\"%d\">%.1f</text>\n",
    y + 12, label ~ /^greenlet/ ? "lib" label : label, y, width, label ~ /^greenlet/ ? "#2a7f3f" : "#9aa5b1", 196 + width, y + 12, ns >svg
}

function chart(work, title, i, key, longest, count, j, t) {
  count = 0
  for (i = 1; i <= programs; ++i) if (have(program[i] SUBSEP work)) shown[++count] = program[i]
  for (i = 2; i <= count; ++i)
    for (j = i; j > 1 && m[shown[j - 1], work] > m[shown[j], work]; --j) { t = shown[j]; shown[j] = shown[j - 1]; shown[j - 1] = t }
  if (!count) return
  longest = m[shown[count], work]
  printf "<text x=\"8\" y=\"%d\" font-weight=\"bold\">%s</text>\n", at + 14, title >svg
  at += 22
  for (i = 1; i <= count; ++i) { bar(at, shown[i], m[shown[i], work], longest); at += 19 }
  at += 14
}

{
  key = $1 SUBSEP $2
  if (!($1 in seen)) { seen[$1]; program[++programs] = $1 }
  if (!(key in n)) order[++keys] = key
  figure[key, ++n[key]] = $3
  if (NF > 3) bytes[key] = $4
}

END {
  for (i = 1; i <= keys; ++i) m[order[i]] = median(order[i])
  base = m["fcontext", "switch"]
  printf "%-16s %-16s %12s %10s %10s %8s\n", "program", "work", "ns", "bytes", "of jump", "rounds"
  printf "[" >json
  for (i = 1; i <= keys; ++i) {
    split(order[i], part, SUBSEP)
    held = (order[i] in bytes) ? bytes[order[i]] : ""
    printf "%-16s %-16s %12.2f %10s %10s %8d\n", part[1], part[2], m[order[i]], held, base ? sprintf("%.2f", m[order[i]] / base) : "", n[order[i]]
    printf "%s\n  {\"program\": \"%s\", \"work\": \"%s\", \"ns\": %.3f, \"bytes\": %s, \"rounds\": %d}", (i > 1 ? "," : ""), part[1], part[2], m[order[i]], (held == "" ? "null" : held), n[order[i]] >json
  }
  print "\n]" >json
  print ""
  target("switch_to(), nothing sent, of jump_fcontext", "greenlet" SUBSEP "switch", "fcontext" SUBSEP "switch", 0.50)
  target("switch_to(int), of jump_fcontext", "greenlet" SUBSEP "switch_int", "fcontext" SUBSEP "switch", 0.60)
  target("greenlet_switch() in C, of jump_fcontext", "greenlet_c" SUBSEP "switch_c", "fcontext" SUBSEP "switch", 1.2)
  target("with preserve_fp_env, of jump_fcontext", "greenlet" SUBSEP "switch_fp", "fcontext" SUBSEP "switch", 1.6)
  target("make, run and drop, of Boost.Context's pooled fiber", "greenlet" SUBSEP "start", "boost_context" SUBSEP "start", 0.45)
  target("first switch into 100,000, of Boost.Context's fiber", "greenlet" SUBSEP "cold", "boost_context" SUBSEP "cold", 0.7)
  target("throw into a suspended one, of throw and catch in place", "greenlet" SUBSEP "throw", "greenlet" SUBSEP "throw_in_place", 1.1)
  target("make one of 1,000,000, with guards, of Boost.Context's without", "greenlet" SUBSEP "million", "boost_context" SUBSEP "million", 1)
  target("copy and drop a handle, of a shared_ptr", "greenlet" SUBSEP "handle", "greenlet" SUBSEP "shared_ptr", 0.5)
  target("switch among 1,000,000 others, of switch alone", "greenlet" SUBSEP "hot_among", "greenlet" SUBSEP "switch", 1.1)
  if (("greenlet" SUBSEP "million") in bytes) {
    b = bytes["greenlet", "million"]
    printf "%-78s %8d  <= %-6d %s\n", "bytes of one of 1,000,000 suspended greenlets, resident and page tables", b, 4500, b <= 4500 ? "met" : "MISSED"
    if (b > 4500) missed++
  }
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"HEIGHT\" font-family=\"sans-serif\" font-size=\"12\">\n" >svg
  at = 8
  chart("switch", "One-way switch, ns (logarithmic)")
  chart("start", "Make, run to the end, drop, ns (logarithmic)")
  print "</svg>" >svg
  close(svg)
  system("sed -i 's/HEIGHT/" at "/' '" svg "'")
  exit strict && missed ? 1 : 0
}
