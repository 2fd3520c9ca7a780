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

# A bar as long as `part` of the longest.
function bar(label, text, part, own, width) {
  own = label == "greenlet"
  width = 4 + 500 * part
  printf "<text x=\"178\" y=\"%d\" text-anchor=\"end\"%s>%s</text>", at + 12, own ? " font-weight=\"bold\"" : "", own ? "libgreenlet" : label == "call" ? "a call, to compare" : label >svg
  printf "<rect x=\"186\" y=\"%d\" width=\"%.0f\" height=\"15\" rx=\"2\" fill=\"%s\"/>", at, width, own ? "#2a7f3f" : "#9aa5b1" >svg
  printf "<text x=\"%.0f\" y=\"%d\">%s</text>\n", 192 + width, at + 12, text >svg
  at += 20
}

# Ours first, then by length. The nanoseconds of peers lie so far apart that only logarithms show all of them.
function chart(work, title, in_bytes, i, key, longest, count, j, t, v) {
  count = 0
  for (i = 1; i <= programs; ++i) {
    key = program[i] SUBSEP work
    if (have(key) && (!in_bytes || key in bytes)) { shown[++count] = program[i]; v[program[i]] = in_bytes ? bytes[key] : m[key] }
  }
  for (i = 2; i <= count; ++i)
    for (j = i; j > 1 && shown[j - 1] != "greenlet" && (shown[j] == "greenlet" || v[shown[j - 1]] > v[shown[j]]); --j) { t = shown[j]; shown[j] = shown[j - 1]; shown[j - 1] = t }
  if (!count) return
  for (i = 1; i <= count; ++i) if (v[shown[i]] > longest) longest = v[shown[i]]
  printf "<text x=\"16\" y=\"%d\" font-size=\"15\" font-weight=\"bold\">%s</text>\n", at + 14, title >svg
  at += 26
  for (i = 1; i <= count; ++i)
    bar(shown[i], sprintf(in_bytes || v[shown[i]] >= 100 ? "%.0f" : "%.1f", v[shown[i]]), in_bytes ? v[shown[i]] / longest : log(1 + v[shown[i]]) / log(1 + longest))
  at += 16
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
  target("switch_to() with the collector enabled, of without", "greenlet_gc" SUBSEP "switch", "greenlet" SUBSEP "switch", 1.03)
  target("collection, for each of 100,000 suspended, of Crystal\x27s for each of 30,000", "greenlet_gc" SUBSEP "collect", "crystal" SUBSEP "collect", 1)
  if (("greenlet" SUBSEP "million") in bytes) {
    b = bytes["greenlet", "million"]
    printf "%-78s %8d  <= %-6d %s\n", "bytes of one of 1,000,000 suspended greenlets, resident and page tables", b, 4500, b <= 4500 ? "met" : "MISSED"
    if (b > 4500) missed++
  }
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"HEIGHT\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n" >svg
  print "<rect width=\"780\" height=\"HEIGHT\" fill=\"#fff\"/>" >svg
  at = 14
  chart("switch", "One-way switch, ns (logarithmic)")
  chart("start", "Make, run to the end, drop, ns (logarithmic)")
  chart("million", "One of 1,000,000 that are suspended, bytes of memory", 1)
  printf "<text x=\"16\" y=\"%d\" font-size=\"11\" fill=\"#666\">Medians of make bench; %s</text>\n", at + 8, machine >svg
  at += 20
  print "</svg>" >svg
  close(svg)
  system("sed -i 's/HEIGHT/" at "/g' '" svg "'")
  exit strict && missed ? 1 : 0
}
