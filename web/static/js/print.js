// A sheet's button prints it; without scripts the browser's own menu does, and there is no button.
const button = document.querySelector("[data-print]");
button.hidden = false;
button.addEventListener("click", () => print());
