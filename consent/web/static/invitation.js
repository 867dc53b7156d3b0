// The code travels in the address's fragment, which is never sent to a server; a link preview cannot use it up.
const field = document.querySelector("#code");

function fill() {
  const code = decodeURIComponent(location.hash.slice(1)).trim();
  if (field === null || !/^[0-9A-Za-z -]{20,80}$/.test(code)) return;
  field.value = code;
  document.querySelector(".when-empty").hidden = true;
  document.querySelector(".when-filled").hidden = false;
}

addEventListener("hashchange", fill); // another link, opened in this very tab, loads nothing anew
fill();
