// What couldn't be answered is asked for again by itself; a form goes out once more under its own key.
const PAUSE = 3000;

const form = document.getElementById("again");
setTimeout(() => (form ? form.requestSubmit() : location.reload()), PAUSE);
