// What Material leaves out for keyboards and screen readers: boxes that scroll take the focus, and each block's buttons
// have a name of their own. Material makes both after the page has loaded, so they are waited for.
const mend = () => {
  document.querySelectorAll(".md-code__nav").forEach((nav, number) => {
    const label = `Buttons of code block ${number + 1}`;
    if (nav.getAttribute("aria-label") !== label) nav.setAttribute("aria-label", label);
  });
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((box) => {
    box.setAttribute("tabindex", "0");
  });
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
