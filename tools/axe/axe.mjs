// Opens pages in Chromium at two widths, light, dark and on paper, and says what axe-core finds, what is wider than the
// screen, and what asks another host.
//
//   node tools/axe/axe.mjs [--shots FOLDER] PAGE.html…      exit code 1 where something was found
//
// CHROMIUM names the browser (chromium); `make axe` and tests/researcher/report/test_accessibility.py call it.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const args = process.argv.slice(2);
const shots = args[0] === "--shots" ? args.splice(0, 2)[1] : null;
const executablePath = process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium || command -v chromium-browser || command -v google-chrome"]).toString().trim();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const findings = [];

for (const file of args) {
  const name = `${basename(dirname(resolve(file)))}-${basename(file, ".html")}`;
  for (const width of [390, 1280]) {
    for (const look of ["light", "dark", "print"]) {
      const context = await browser.newContext({ viewport: { width, height: 844 }, bypassCSP: true, reducedMotion: "reduce" });
      const page = await context.newPage();
      const where = `${name} ${width} ${look}`;
      page.on("request", (request) => {
        if (!/^(file|data|blob|about):/.test(request.url())) findings.push(`${where}: asks ${request.url()}`);
      });
      await page.emulateMedia(look === "print" ? { media: "print", colorScheme: "light" } : { media: "screen", colorScheme: look });
      await page.goto(pathToFileURL(resolve(file)).href);
      const wide = await page.evaluate(() => {
        const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        if (over <= 0) return null;
        // What is wider and in no box that scrolls by itself.
        const inBox = (e) => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) if (getComputedStyle(p).overflowX !== "visible") return true; return false; };
        const by = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !inBox(e));
        return `${over} px wider than the screen: ${by.slice(-3).map((e) => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}">`).join(" ")}`;
      });
      if (wide) findings.push(`${where}: ${wide}`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      for (const violation of violations) {
        findings.push(`${where}: ${violation.id} (${violation.impact}): ${violation.nodes.length} x ${violation.nodes[0].target} ${violation.nodes[0].failureSummary.replace(/\s+/g, " ").slice(0, 240)}`);
      }
      if (shots) {
        mkdirSync(shots, { recursive: true });
        await page.screenshot({ path: `${shots}/${where.replaceAll(" ", "-")}.png`, fullPage: true });
        if (look === "print" && width === 1280) await page.pdf({ path: `${shots}/${name}.pdf`, preferCSSPageSize: true, format: "A4", printBackground: true });
      }
      await context.close();
    }
  }
}
await browser.close();
for (const finding of findings) console.log(finding);
console.log(`${args.length} pages at 390 and 1280 px, light, dark and on paper: ${findings.length} findings`);
process.exit(findings.length ? 1 : 0);
